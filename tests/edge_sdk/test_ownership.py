"""One call at a time, of the process that loaded: other threads and forked processes get typed errors."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

import edge_sdk as edge
from edge_sdk.errors import InferFailed, InputError, ModelBusy
from edge_sdk.ownership import Ownership


class Owner:
    pass


@pytest.fixture
def owned():
    owner = Owner()
    ownership = Ownership(owner, "the thing")
    yield ownership
    del owner


def test_who_takes_it_has_it_until_it_is_given_back(owned):
    for _ in range(2):
        with owned, pytest.raises(ModelBusy, match="the thing is in use"), owned:
            pass


def test_an_error_gives_it_back(owned):
    with pytest.raises(ZeroDivisionError), owned:
        raise ZeroDivisionError
    with owned:
        pass


def test_it_cannot_end_in_the_middle_of_a_call(owned):
    with owned, pytest.raises(ModelBusy):
        owned.end()
    assert owned.end() is True
    assert owned.end() is False
    with pytest.raises(InferFailed, match="the thing is closed"), owned:
        pass


def test_many_threads_never_have_it_at_once(owned):
    inside, most, busy = [], [], []

    def work():
        for _ in range(50):
            try:
                with owned:
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0)
                    inside.pop()
            except ModelBusy:
                busy.append(1)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) + len(busy) == 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_call_that_goes_on_in_a_forked_child_frees_nothing_there(owned):
    code = 0
    with owned:
        child = os.fork()
    if child == 0:
        try:
            with owned:
                code = 1
        except InferFailed:
            code = 7 if owned.end() is False else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with owned:
        pass


@pytest.fixture
def slow(toy_bundle, toy_engine):
    """The toy, whose engine waits for an event in every call."""
    with edge.load(toy_bundle) as model:
        began, go = threading.Event(), threading.Event()
        right = toys.engine

        def answer(pixels):
            began.set()
            assert go.wait(10)
            return right(pixels)

        toy_engine.answer = answer
        yield model, began, go
        go.set()


def test_a_second_thread_and_close_are_refused_and_the_first_gets_its_answer(slow):
    model, began, go = slow
    answers = []
    thread = threading.Thread(target=lambda: answers.append(model(toys.frame())))
    thread.start()
    assert began.wait(10)
    with pytest.raises(ModelBusy, match="the model is in use"):
        model(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ModelBusy):
        model.close()
    go.set()
    thread.join()
    assert answers[0].labels == ("red",)
    assert len(model(toys.frame())) == 1
    model.close()
    with pytest.raises(InputError, match="the model is closed"):
        model(toys.frame())


FORK = """
import os, signal, sys
import numpy as np
import edge_sdk as edge

frame = np.zeros((64, 64, 3), np.uint8)
model = edge.load(sys.argv[1], target=sys.argv[2], threads=2)
model(frame)
child = os.fork()
if child == 0:
    signal.alarm(20)
    for use in (lambda: model(frame), lambda: model.session.infer({})):
        try:
            use()
        except edge.InferFailed as error:
            assert "forked" in str(error), error
        else:
            sys.exit(1)
    model.close()
    try:
        edge.load(sys.argv[1], target=sys.argv[2], threads=2).close()
    except edge.LoadFailed as error:
        assert "forked" in str(error), error
    sys.exit(0)  # all that Python frees at its end, is freed or left
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
model(frame)
model.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tflite"])
def test_a_forked_child_gets_typed_errors_and_ends(engine):
    pytest.importorskip("ai_edge_litert" if engine == "tflite" else engine, reason="engine not installed")
    done = subprocess.run(
        [sys.executable, "-c", FORK, "fer-yolo11n", engine],
        capture_output=True,
        timeout=120,
        # onnxruntime's reporting thread would keep a forked child from ending.
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()
