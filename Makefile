# make demo: install the core and run the main job.  make test: install what the tests need and run them.
PYTHON ?= python3
VENV ?= .venv
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadscope
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo bench test test-slow test-long test-core test-oldest dist dist-check lint types wrap docs clean

demo: $(VENV)/.core
	$(VENV)/bin/shaped-transformer compare --out demo

test: $(VENV)/.test
	$(PYTEST) -m "not slow and not long"

test-slow: $(VENV)/.test # statistical laws, whole commands, several processes
	$(PYTEST) -m slow

test-long: $(VENV)/.test # before a release: what is much like other slow tests
	$(PYTEST) -m long

bench: $(VENV)/.test # a quarter of an hour
	$(VENV)/bin/python benchmarks/speed.py

test-core: VENV = .venv-core
test-core: # those that meet the extras, where none is installed
	$(MAKE) VENV=$(VENV) $(VENV)/.bare
	$(PYTEST) -m "not slow and not long" tests/test_*.py $(addprefix tests/,analysis cli figures io plotting readme views)

test-oldest: VENV = .venv-oldest
test-oldest: # those that meet other packages, with the oldest supported versions of these and Numba's cache apart
	$(MAKE) VENV=$(VENV) $(VENV)/.oldest
	NUMBA_CACHE_DIR=$(CURDIR)/$(VENV)/kernels $(PYTEST) -m "not slow and not long" -k "not is_fast" tests/test_*.py \
		$(addprefix tests/,analysis cli/test_cli.py figures io numerics plotting views)

dist: $(VENV)/.test # the wheel and the sdist, in dist/
	$(VENV)/bin/python -m hatchling build
	$(VENV)/bin/python tools/check_distributions.py --contents

dist-check: dist $(VENV)/.dev # installs both in empty environments and runs their commands (10 minutes)
	$(VENV)/bin/python tools/check_distributions.py

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/flowmark --check .
	$(VENV)/bin/python tools/figure_tables.py --check

wrap: $(VENV)/.dev # wrap Markdown as `make lint` wants it
	$(VENV)/bin/flowmark --inplace --nobackup .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

docs: $(VENV)/.docs # the site, in site/; any warning is an error
	@start=$$(date +%s); rm -rf site; $(VENV)/bin/sphinx-build -qEW --keep-going -b html docs site -d site/.doctrees \
		&& echo "site/index.html, built in $$(($$(date +%s) - start)) s"

clean:
	rm -rf .venv .venv-core .venv-oldest demo dist site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.bare: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.oldest: pyproject.toml constraints-oldest.txt | $(VENV)/bin/python
	$(PIP:constraints.txt=constraints-oldest.txt) -e '.[test]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[bayes,bench,browser,cluster,explore,hf,probe,test,training]'
	touch $@ $(VENV)/.core

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e '.[bayes,bench,cluster,dev,explore,hf,probe,test,training]'
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) -e '.[bayes,bench,cluster,docs,explore,hf,probe,test,training]'
	touch $@
