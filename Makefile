# Everything sets itself up: Python 3.11 or newer and make are all that has to be there.
PYTHON ?= python3
BIN := .venv/bin
RESULTS ?= results
SUITES ?= icde24-table3 icde24-table4 icde24-table5 icde24-table6 icde24-table7 icde24-table9 icde24-table10 \
          icde24-table11 icde24-fig5 icde24-fig7 ijcai22 aaai23-table1 aaai23-table3 aaai23-table4 aaai23-table5
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check style format page archive docs reproduce benchmarks wheel-test clean help

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.installed  ## run the smoke suite on the embedded data and show what it says
	$(BIN)/fedbench run smoke --results $(RESULTS)
	$(BIN)/fedbench leaderboard --suite smoke --brief --results $(RESULTS)

# Types take one core for half a minute, so they are checked while the tests run.
test: style  ## the checks and all tests, on up to eight cores
	$(BIN)/mypy & types=$$!; \
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal; tests=$$?; \
	wait $$types || { echo "mypy: not passed; see above, or make check"; exit 1; }; exit $$tests

check: style  ## format, lint, imports and types
	$(BIN)/mypy

style: .venv/.installed-dev
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/lint-imports --no-logo --no-cache

format: .venv/.installed-dev  ## put the code in order
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

benchmarks: .venv/.installed-dev  ## speed beside the plain per-client loops, on one core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/benchmarks --benchmark-only --benchmark-columns=min,median,rounds

# The reproductions of defenses are left out: their readings of each rule would be entries of their own.
page: .venv/.installed  ## the leaderboard of the published results as one page: build/page/index.html
	$(BIN)/fedbench leaderboard --html build/page $(foreach name,core core-ml-1m core-ml-100k core-untargeted aaai23-table1,\
	  --results leaderboard/results/$(name).parquet) $(addprefix --results ,$(wildcard leaderboard/results/submitted))

archive: .venv/.installed  ## the published records as one file to deposit, with their sums: build/fedbench-records-VERSION.tar.gz
	$(BIN)/python leaderboard/archive.py

docs: .venv/.installed-dev  ## the documentation, without a warning: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f fedbench/docs/mkdocs.yml

reproduce: .venv/.installed-dev  ## published tables against ours, on real data (hours; needs FEDBENCH_DATA or `fedbench data get`)
	$(BIN)/python -m pytest -q -m slow
	set -e; for suite in $(SUITES); do \
	  $(BIN)/fedbench reproduce $$suite --results $(RESULTS) --out $(RESULTS)/$$suite.md; \
	done

wheel-test: .venv/.installed-dev  ## wheel and sdist, installed in a fresh environment away from this tree (downloads torch)
	$(BIN)/python -m pytest -q tests/cli/test_wheel.py -m "slow or not slow"

clean:  ## remove the environment
	rm -rf .venv

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit("fedbench needs Python 3.11 or newer, not " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,docs,plot,vision]'
	@touch $@
