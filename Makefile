# Everything a developer does here. Each target sets up what it needs (tools/setup), so a fresh checkout will do.

.DEFAULT_GOAL := help
.PHONY: help build demo test sanitize bench bench-compare check wheels clean distclean
BIN := .venv/bin

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

build: ## compile virtiofsd in place, with .venv to run it
	@tools/setup build

demo: ## share a directory with a Linux guest and look around in it [SHARE=/some/dir]
	@tools/setup demo
	@$(BIN)/python -m guest.demo $(if $(SHARE),"$(SHARE)")

test: ## the tests, in Linux guests too [LONG=1: for an hour or so; JOBS=0 ARGS="-m 'not guest' ..."]
	@tools/setup test
	@$(BIN)/python -m guest.fetch kernel busybox uml >/dev/null
	@$(BIN)/python -m pytest --numprocesses $(or $(JOBS),$(shell expr $$(nproc) + 1)) \
	  --dist loadfile --no-loadscope-reorder $(ARGS)

sanitize: ## what a malicious guest may try, under AddressSanitizer and UBSan [HOSTILE_TRIES=1000 ARGS="tests/daemon"]
	@VIRTIOFSD_BUILD=sanitize tools/setup test
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(BIN)/python -m pytest $(or $(ARGS),tests/hostile)

bench: ## measure this and the reference daemon [QUICK=1 PARTS=rows,neighbours ROWS=getattr CASES=fsync ROUNDS=5]
	@tools/setup bench
	@$(BIN)/python -m guest.fetch reference >/dev/null
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(ROWS),--rows $(ROWS)) $(if $(PARTS),--parts $(PARTS)) \
	  $(if $(CASES),--cases $(CASES)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

bench-compare: ## the last result as ratios to an older one: make bench-compare OLD.json [NEW.json]
	@tools/setup bench
	@$(BIN)/python -m bench.compare $(filter %.json,$(MAKECMDGOALS))

ifneq ($(filter bench-compare,$(MAKECMDGOALS)),)
%.json: ; @:
endif

check: ## linters, types, generated files, and no Python on the path of a request
	@tools/setup check
	$(BIN)/ruff check
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint _ring frontend bench
	$(BIN)/python tools/generate_abi.py --check
	$(BIN)/python tools/generate_docs.py --check
	$(BIN)/python tools/check_hot_path.py

wheels: ## an sdist and a wheel, in dist/
	@tools/setup wheels
	@$(BIN)/python tools/make_wheels.py

clean: ## remove what was built
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .venv/.built
	rm -f _ring/*.so frontend/*.so bench/*.so
	find . -name .cache -prune -o -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove .venv and what was fetched for guests, too
	rm -rf .venv .cache
