# Every target is one plain Python command; `tasks.py` holds the steps. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3

.PHONY: demo demo-rebuild test test-slow bench
demo demo-rebuild test test-slow bench:
	@$(PYTHON) tasks.py $@
