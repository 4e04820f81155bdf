# Two commands matter: `make run` and `make test`. Each makes the .venv it needs; only Python 3.11 or newer must be there.
.PHONY: help run test ready test-all test-long check format bench bench-limits bench-waiters bench-batch bench-gateway bench-local docs docs-serve picture picture-page simulate-scale chaos soak clean
.NOTPARALLEL:

export PYTHON
# each of hundreds of programs that tests start would compile the package anew
unexport PYTHONDONTWRITEBYTECODE
# no look-up of newer versions
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
PY := .venv/bin/python
BENCH_VENV := .cache/bench-venv
NODE_CLIENTS := .cache/node
BENCH_LOCAL_VENV := .cache/bench-local-venv
LEFT_OUT := node or browser or ray or soak

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

run: ## a real model answers: installs, fetches the small model, runs examples/llm_usage.py
	@.ci/venv run
	@$(PY) -m llm models fetch smollm2-135m
	@$(PY) examples/llm_usage.py

# Checks and what makes ready run side by side. A third worker, for tests wait. What is not covered: .venv/bin/coverage report
test: ## all checks and tests that need Python alone
	@.ci/venv test
	@$(MAKE) --no-print-directory ready & ready=$$!; $(MAKE) --no-print-directory check; checked=$$?; wait $$ready && exit $$checked
	@$(PY) -m pytest --cov --cov-report= -n 3 --dist loadgroup --max-worker-restart 0

# The model; and what hypothesis knows of characters is made and all modules are compiled once here, not once in each
# worker. What cannot be collected is told there.
ready:
	@$(PY) -m llm models fetch smollm2-135m --quiet
	@$(PY) -c "from hypothesis import strategies; strategies.text().validate()"
	@$(PY) -m pytest --collect-only -qq >/dev/null || :

test-all: ## what `make test` leaves out: Node, a browser, Ray, soaks of minutes
	@.ci/venv left-out
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory $(NODE_CLIENTS)/.done
	@$(PY) -m pytest -m "$(LEFT_OUT)" -o faulthandler_timeout=900 || [ $$? -eq 5 ]

# What tests of the gateway call it with from Node.
$(NODE_CLIENTS)/.done: tests/e2e/node/package-lock.json
	@echo "==> Installing the Vercel AI SDK into $(NODE_CLIENTS) (first time only: about 30 MB)"
	@mkdir -p $(NODE_CLIENTS) && cp tests/e2e/node/package.json $< $(NODE_CLIENTS)
	@npm ci --prefix $(NODE_CLIENTS) --silent --no-audit --no-fund --ignore-scripts
	@touch $@

test-long: ## the tests of properties with forty times as many examples each
	@.ci/venv test
	@$(PY) -m pytest -n 2 --dist loadgroup --hypothesis-profile thorough -m "hypothesis and not ($(LEFT_OUT))" tests/unit tests/contract

check: ## static checks: ruff, mypy, pyright
	@.ci/venv test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy & mypy=$$!; $(PY) -m pyright --pythonpath $(PY); pyright=$$?; wait $$mypy && exit $$pyright # side by side

format: ## ruff's fixes and layout
	@.ci/venv test
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(BENCH_VENV)/.done ## what calls and streams cost beside bare ones and other clients: into benchmarks/results (25 minutes)
	@.ci/venv test
	@$(PY) -m benchmarks.calls --json .cache/bench.json --results benchmarks/results

bench-limits: $(BENCH_VENV)/.done ## how soon limited keys are filled, beside other clients: into benchmarks/results (ten minutes)
	@.ci/venv run
	@$(PY) -m benchmarks.limits --variation plain streams cancelled shared --sockets \
		--json .cache/bench-limits.json --results benchmarks/results

bench-waiters: ## CPU time of each of 100,000 calls that wait for a key, beside each of 1,000
	@.ci/venv run
	@$(PY) -m benchmarks.waiters

simulate-scale: $(BENCH_VENV)/.done ## 1,000 accounts and 1,000 workers on a virtual clock: into benchmarks/results (three minutes)
	@.ci/venv run
	@$(PY) -m benchmarks.scale --results benchmarks/results

bench-batch: ## CPU of a batch's row beside its call, memory of a million rows: into benchmarks/results (ten minutes)
	@.ci/venv run
	@$(PY) -m benchmarks.batch --results benchmarks/results

bench-gateway: ## requests through `manifold serve` beside a bare handler: into benchmarks/results (two minutes)
	@.ci/venv test
	@$(PY) -m benchmarks.gateway --results benchmarks/results

bench-local: $(BENCH_LOCAL_VENV)/.done ## the model on the box beside transformers' own and llama.cpp: into benchmarks/results (15 minutes)
	@.ci/venv run
	@$(PY) -m llm models fetch smollm2-135m --quiet
	@$(PY) -m benchmarks.local --json .cache/bench-local.json --results benchmarks/results

docs: ## the site of the docs, into .cache/site; a warning, or a link that leads nowhere, is an error
	@.ci/venv test
	@$(PY) docs/site/build.py

docs-serve: docs ## the same, at http://127.0.0.1:8010
	@$(PY) -m http.server --bind 127.0.0.1 --directory .cache/site 8010

picture: ## records the terminal picture of the README anew: docs/pictures/batch.svg (half a minute)
	@.ci/venv test
	@$(PY) docs/pictures/record.py

picture-page: ## takes the pictures of the dashboard anew, in Chromium: docs/pictures/dashboard-*.png (a minute)
	@.ci/venv left-out
	@$(PY) docs/pictures/dashboard.py

chaos: ## 35,000 calls through faults, dying keys, reloads and cancellations, held against what is promised (ten minutes)
	@.ci/venv run
	@$(PY) -m benchmarks.chaos

soak: ## 30 minutes of everything that `manifold serve` is asked, its memory, log and metrics held against it
	@.ci/venv test
	@$(PY) -m benchmarks.soak

# What only benchmarks use, apart from .venv: litellm brings other versions of what we test with.
$(BENCH_VENV)/.done: benchmarks/requirements.txt
	@.ci/venv run
	@echo "==> Installing what is compared into $(BENCH_VENV) (first time only: about 800 MB on disk)"
	@$(PY) -m venv --clear $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

# The same for the local model; its torch and transformers are those of .venv, found by the .pth file.
$(BENCH_LOCAL_VENV)/.done: benchmarks/requirements-local.txt
	@.ci/venv run
	@echo "==> Installing what is compared into $(BENCH_LOCAL_VENV) (first time only: about 300 MB on disk)"
	@$(PY) -m venv --clear $(BENCH_LOCAL_VENV)
	@$(BENCH_LOCAL_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@beside="import sysconfig; print(sysconfig.get_path('purelib'))"; \
		$(PY) -c "$$beside" > "$$($(BENCH_LOCAL_VENV)/bin/python -c "$$beside")/beside.pth"
	@touch $@

clean: ## remove all that was made here, .venv and caches included
	rm -rf .venv .cache .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
