# Every target makes the environment it needs; nothing has to be installed first but python3 (3.10 to 3.13) and make.
PYTHON ?= python3
DATA ?= ../shared/data
PEERS_ENVS ?= runs/peers-envs
MINUTES ?= 10
DEMO := .venv-demo
DEV := .venv
PIP := -m pip --disable-pip-version-check -q

.PHONY: fuzz bench-peers crosscheck help demo test check test-pythons test-tflite-runtime test-arm64 test-outside-target train-fer-yolo11n train-fer-yolo12n train-fer-gmenet train-fer-gmenet-teacher train-fer-teacher train-pad-minifasnet ablation-gmenet pad-unseen qat-fer-gmenet zoo int8-report jetson wheel clean

help:
	@echo "make demo          name a face, build int8 bundles, compare engines (no torch; under 4 minutes)"
	@echo "make test          the test suite"
	@echo "make docs          the site of these documents, in site/ (no network once its tools are installed)"
	@echo "make check         formatting, lint, types, import contracts, oldest Python"
	@echo "make bench-ratios  engines against each other by processor time, held against benchmarks/baselines"
	@echo "make test-pythons  the runtime's tests on Python 3.10, 3.12 and 3.13 (pyenv)"
	@echo "make test-tflite-runtime  the older TFLite engine in an environment of its own (numpy 1)"
	@echo "make test-arm64    every engine from a wheelhouse in a Raspberry Pi's userland under qemu (root; 400 MB; minutes)"
	@echo "make fuzz MINUTES=60  what strangers can hand to the SDK, fuzzed on every core (atheris where it installs)"
	@echo "make test-outside-target  a target of a package of its own (ncnn) passes the contract suite"
	@echo "make jetson DATA=...              bundles of all zoo models for Jetson boards, gated and checked"
	@echo "make bench-peers DATA=...  the product beside Ultralytics and others, each in its own environment"
	@echo "make privacy       what engines and host tools send and leave behind, a minute each (strace; a quarter of an hour)"
	@echo "make crosscheck    our inference stage beside LoadGen, benchmark_app and LiteRT's benchmark"
	@echo "make wheel         sdist, and the wheel from the sdist, in dist/"
	@echo "make qat-fer-gmenet DATA=...      fine-tune for int8 (minutes), for recipe int8-qat"
	@echo "make train-fer-yolo11n DATA=...   train, resumable (hours); make zoo DATA=... rebuilds the shipped bundles"
	@echo "make int8-report DATA=...         what int8 costs each model on each engine, with paired bounds (half an hour)"

$(DEMO)/done: pyproject.toml
	@echo "creating $(DEMO) (no torch; about 60 s)"
	@$(PYTHON) -m venv $(DEMO)
	@$(DEMO)/bin/python $(PIP) install -e '.[host]' scikit-image
	@touch $@

demo: $(DEMO)/done
	@$(DEMO)/bin/python examples/demo.py

$(DEV)/done: pyproject.toml
	@echo "creating $(DEV) with everything, torch too (2.5 GB, about 2 minutes)"
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(PIP) install 'pip>=25.1'
	@$(DEV)/bin/python $(PIP) install torch==2.13.0
	@$(DEV)/bin/python $(PIP) install -e '.[train]' --group test --group check
	@touch $@

# Training apart: with torch and every engine in one process a later start of another process crashed it.
test: $(DEV)/done
	@$(DEV)/bin/python -m pytest --ignore tests/edge_training
	@$(DEV)/bin/python -m pytest tests/edge_training

check: $(DEV)/done
	@$(DEV)/bin/ruff format --check .
	@$(DEV)/bin/ruff check .
	@$(DEV)/bin/mypy
	@$(DEV)/bin/lint-imports
	@$(DEV)/bin/vermin --quiet --no-tips --target=3.10- --violations --exclude tomllib edge_sdk targets benchmarks quantize

DOCS := .venv-docs

$(DOCS)/done: pyproject.toml
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python $(PIP) install -e '.[opencv,docs]'
	@touch $@

# Links, anchors, pages without a place in the navigation and docstrings that cannot be shown fail it.
.PHONY: docs
docs: $(DOCS)/done
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet

.PHONY: bench-ratios
bench-ratios: $(DEV)/done
	@$(DEV)/bin/python -m edge_benchmarks.speedup fer-yolo11n --rounds 40 \
		--baseline benchmarks/baselines/x86_64-avx512_vnni.json

test-pythons:
	@bash tests/pythons.sh

test-tflite-runtime:
	@bash tests/tflite_runtime.sh

test-arm64: $(DEV)/done
	@PYTHON=$(DEV)/bin/python bash tests/arm64.sh

OUTSIDE := .venv-outside

fuzz: $(DEV)/done
	@$(DEV)/bin/python $(PIP) install --only-binary :all: atheris || echo "atheris has no wheel here: seeded mutations instead"
	@PYTHONPATH=tests $(DEV)/bin/python -m fuzz --minutes $(MINUTES)

test-outside-target:
	@$(PYTHON) -m venv $(OUTSIDE)
	@$(OUTSIDE)/bin/python $(PIP) install -e '.[opencv]' -e examples/ncnn-target onnx
	@$(OUTSIDE)/bin/python $(PIP) install --no-deps pnnx
	@$(OUTSIDE)/bin/edge-sdk conformance ncnn

wheel: $(DEV)/done
	@$(DEV)/bin/python -m build --outdir dist .

train-fer-yolo11n train-fer-yolo12n: LAST := detector
train-fer-gmenet: LAST := student
train-pad-minifasnet: LAST := liveness

train-fer-gmenet: START := --start runs/fer-teacher-2/classifier.best.safetensors
train-fer-gmenet: train-fer-teacher

train-fer-yolo11n train-fer-yolo12n train-fer-gmenet train-pad-minifasnet: train-%: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.train training/recipes/$*.toml --data $(DATA) --work runs/$* $(START)
	@$(DEV)/bin/python -m edge_training.export $* runs/$*/$(LAST).best.safetensors

train-fer-gmenet-teacher: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.train training/recipes/fer-gmenet-teacher.toml --data $(DATA) --work runs/fer-gmenet-teacher

# By the first generation that is in training/weights.
train-fer-teacher: $(DEV)/done
	@for seed in 1 2; do $(DEV)/bin/python -m edge_training.train training/recipes/fer-teacher.toml --seed $$seed \
		--start training/weights/fer-gmenet-teacher.safetensors --data $(DATA) --work runs/fer-teacher-$$seed || exit; done

ablation-gmenet: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.ablate training/recipes/ablation-gmenet.toml --data $(DATA) \
		--teacher training/weights/fer-gmenet-teacher.safetensors --work runs/ablation-gmenet

pad-unseen: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.ablate training/recipes/pad-unseen.toml --data $(DATA) --work runs/pad-unseen

qat-fer-gmenet: qat-%: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.train training/recipes/$*-qat.toml --data $(DATA) --work runs/$*-qat \
		--start training/weights/$*.safetensors
	@$(DEV)/bin/python -m edge_training.qat $* runs/$*-qat/qat.best.safetensors --output runs/$*-qat

zoo: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.release --data $(DATA) --work runs/release

int8-report: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.int8_report --data $(DATA) --work runs/release

jetson: $(DEV)/done
	@$(DEV)/bin/python -m edge_training.jetson --data $(DATA) --work runs/jetson

bench-peers: $(DEV)/done
	@$(DEV)/bin/python -m peers --data $(DATA) --environments $(PEERS_ENVS)

crosscheck: $(DEV)/done
	@$(DEV)/bin/python $(PIP) install -e '.[loadgen]'
	@$(DEV)/bin/python -m edge_benchmarks.crosscheck

.PHONY: privacy
privacy: $(DEV)/done
	@$(DEV)/bin/python tests/privacy.py --seconds 60

clean:
	rm -rf $(DEMO) $(DEV) $(OUTSIDE) $(DOCS) dist site demo-output
