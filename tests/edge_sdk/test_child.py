"""How processes of their own end, told in words."""

from edge_sdk.child import run_python


def run(code, timeout_s=30.0):
    return run_python(("-c", code), timeout_s=timeout_s)


def test_how_a_process_ended_is_told_in_words():
    fine = run("print('one'); print('two')")
    assert (fine.lines, fine.problem) == (("one", "two"), None)
    ill = run("import os; print('one', flush=True); os.kill(os.getpid(), 4)")
    assert (ill.lines, ill.problem, ill.signal) == (("one",), "died of SIGILL", "SIGILL")
    wrong = run("raise ImportError('libGL.so.1')")
    assert (wrong.problem, wrong.said) == ("ended with code 1", "ImportError: libGL.so.1")
    half = run("import os; os.write(1, b'whole\\nhal'); os.kill(os.getpid(), 9)")
    assert (half.lines, half.signal) == (("whole",), "SIGKILL")


def test_a_process_that_hangs_is_stopped():
    hung = run("import time; print('one', flush=True); time.sleep(60)", timeout_s=1.0)
    assert hung.timed_out
    assert hung.lines == ("one",)
    assert "1 s" in hung.problem
