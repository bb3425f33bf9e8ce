# Everything a developer does here. Each target sets up what it needs (tools/setup), so a fresh checkout will do.

.DEFAULT_GOAL := help
.PHONY: help build demo test check clean distclean
BIN := .venv/bin

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

build: ## compile virtiofsd in place, with .venv to run it
	@tools/setup build

demo: ## share a directory with a Linux guest and look around in it [SHARE=/some/dir]
	@tools/setup demo
	@$(BIN)/python -m guest.demo $(if $(SHARE),"$(SHARE)")

test: ## the tests, in Linux guests too [ARGS="-m 'not guest' ..."]
	@tools/setup test
	@$(BIN)/python -m guest.fetch kernel busybox uml >/dev/null
	@$(BIN)/python -m pytest $(ARGS)

check: ## linters, types, generated files, and no Python on the path of a request
	@tools/setup check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/cython-lint _ring frontend
	$(BIN)/python tools/generate_abi.py --check
	$(if $(wildcard tools/check_hot_path.py),$(BIN)/python tools/check_hot_path.py)

clean: ## remove what was built
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .venv/.built
	rm -f _ring/*.so frontend/*.so
	find . -name .cache -prune -o -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove .venv and what was fetched for guests, too
	rm -rf .venv .cache
