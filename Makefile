# Every target makes the environment if it is missing, and redoes only what changed.
PYTHON ?= python3
BIN := .venv/bin
# Threads that wait sleep: spinning ones starve a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
# Test files run side by side, each in a process with one thread: WORKERS=4 where there are cores.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -rs -n $(WORKERS) --dist loadfile --no-loadscope-reorder
CHROMIUM ?= chromium
BOOK := _config.yml _toc.yml index.md references.bib $(wildcard chapters/*) $(wildcard _assets/*) \
        $(wildcard _ext/*) $(wildcard src/*/*.py) $(wildcard exercises/*/*.ipynb)

.PHONY: book pdf test quick soak lab sync execute check bench models
.DELETE_ON_ERROR:

ifdef SOLUTIONS
book: .make/book-solutions  ## SOLUTIONS=1: the instructor's edition, _build/solutions/_build/html
else
book: .make/book            ## build the book: _build/html/index.html
endif
pdf: .make/pdf              ## print the whole book into one file: _build/book.pdf
test: .venv/ready           ## run every test, and every notebook against its stored outputs
	$(PYTEST) -m "not soak" tests chapters --nbval

quick: .venv/ready          ## check, and test the modules that changed since the last commit
	$(BIN)/python tests/quick.py

soak: .venv/ready           ## the long tests that are seldom news
	$(PYTEST) -m soak tests

lab: .venv/ready            ## open JupyterLab on the chapters; exercises/ stands beside them
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/chapters

sync: .venv/ready           ## write the definitions of src/ into the cells that show them
	$(BIN)/course sync

execute: .venv/ready        ## run the chapters that changed, they or what they import
	$(BIN)/course execute --changed

check: .venv/ready          ## lint, format, types, and cells against src/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/course sync --check

bench: .venv/ready          ## measure against the peers; writes benchmarks/RESULTS.md
	env -u OMP_WAIT_POLICY $(BIN)/python -m benchmarks

models: .venv/ready         ## train the models of chapter 8, in pieces that survive an interruption
	$(BIN)/course models --all

.make/book: .venv/ready $(BOOK)
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	@mkdir -p .make && touch $@
	@echo "The book is at _build/html/index.html"

.make/pdf: .venv/ready $(BOOK)
	$(BIN)/jupyter-book build . --builder singlehtml -n --keep-going -q
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --no-pdf-header-footer \
	  --generate-pdf-document-outline --print-to-pdf=_build/book.pdf \
	  file://$(CURDIR)/_build/singlehtml/index.html
	@mkdir -p .make && touch $@
	@echo "The book for print is _build/book.pdf"

.make/book-solutions: .venv/ready $(BOOK) $(wildcard solutions/*/*.ipynb)
	@mkdir -p .make
	sed -e '/^exclude_patterns/s/solutions, //' -e 's|course_book: _ext|course_book: $(CURDIR)/_ext|' _config.yml > .make/_config.yml
	sed 's|^\( *\)- file: exercises/\(.*\)|&\n\1- file: solutions/\2|' _toc.yml > .make/_toc.yml
	$(BIN)/jupyter-book build . --config .make/_config.yml --toc .make/_toc.yml \
	  --path-output _build/solutions -W -n --keep-going -q
	@touch $@
	@echo "The instructor's edition is at _build/solutions/_build/html/index.html: do not publish it"

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]"
	@touch $@
