# The menu. Each target is one verb; what it does lives in the rooms that it calls. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV ?= local
# Byte code belongs beside the packages that we install: compiling all of them takes a minute, and most are never loaded.
unexport PYTHONDONTWRITEBYTECODE

CONTROLLER := .venv/bin/longrun-controller
PYTEST := tests/.venv/bin/pytest

controller = controller/bootstrap .venv requirements/controller.txt controller && exec $(CONTROLLER)
training = controller/bootstrap training/.venv requirements/training.txt training
first_half = tests/unit/training tests/unit/ansible tests/unit/terraform
test_tools = controller/bootstrap .venv requirements/controller.txt controller && $(CONTROLLER) tools --test --env local && controller/bootstrap tests/.venv requirements/test.txt controller training server

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile
	@printf '\nEach takes ENV=name (default: local).\n'

##@ A server
.PHONY: tools new up plan provision deploy users
tools: ## Install or build what the other targets need
	@$(controller) tools --env '$(ENV)'
new: ## Make the folder of another server: ENV=staging PLATFORM=libvirt
	@$(controller) new --env '$(ENV)' --platform '$(or $(PLATFORM),container)'
up: ## Everything: tools, provision, deploy, users, one training run
	@$(controller) up --env '$(ENV)'
plan: ## Show what provision would do to the host, and the plan's digest
	@$(controller) plan --env '$(ENV)'
provision: ## Make the host (Terraform), with PostgreSQL and MinIO on it: PLAN=digest, only if the plan is still that one
	@$(controller) provision --env '$(ENV)' $(if $(filter-out undefined,$(origin PLAN)),--plan '$(PLAN)')
deploy: ## Install MLflow behind nginx
	@$(controller) deploy --env '$(ENV)'
users: ## Create the users of users.yml that are not there yet
	@$(controller) users --env '$(ENV)'

##@ Its use
.PHONY: train gate report env password status verify
train: ## Train a model against the server: DATA=file.csv TARGET=column ARGS="--seed 7"
	@$(training)
	@$(controller) train --env '$(ENV)' --data '$(DATA)' --target '$(TARGET)' --args '$(ARGS)'
gate: ## Compare the last trained model with the one before: ARGS="--config longrun.toml"
	@$(training)
	@$(controller) gate --env '$(ENV)' --args '$(ARGS)'
report: ## Write the gate's report: Markdown, a page, the trend as a picture
	@$(training)
	@$(controller) report --env '$(ENV)' --args '$(ARGS)'
env: ## Print what a client needs: eval "$$(make -s env)"; LOGIN=name for another user
	@$(controller) env --env '$(ENV)' --login '$(or $(LOGIN),ci)'
password: ## Print a password: LOGIN=name (default: admin)
	@$(controller) password --env '$(ENV)' --login '$(or $(LOGIN),admin)'
status: ## What runs where, healthy or not, how much there is
	@$(controller) status --env '$(ENV)'
verify: ## Check the running server without changing it
	@$(controller) verify --env '$(ENV)'

##@ Its end
.PHONY: down destroy
down: ## Stop the server, keep everything
	@$(controller) down --env '$(ENV)'
destroy: ## Delete the server and all its data: CONFIRM=name
	@$(controller) destroy --env '$(ENV)' --confirm '$(CONFIRM)'

##@ Work on longrun itself
.PHONY: test lint test-unit test-unit-first test-unit-rest test-roles test-e2e test-e2e-server test-e2e-flow test-e2e-aws test-vm bench bench-gate bench-training test-tools lock
test: lint test-unit ## All tests; roles and end to end side by side
	@$(MAKE) --no-print-directory --jobs=4 test-roles test-e2e-server test-e2e-flow test-e2e-aws
test-tools:
	@$(test_tools)
lint: test-tools ## Style and static checks
	@tests/lint
test-unit: test-tools ## Python packages, inventory, roles' rules, Terraform plans; half on each core
	@$(MAKE) --no-print-directory --jobs=2 test-unit-first test-unit-rest
test-unit-first: test-tools ## Its first half: the training package, the roles' rules, Terraform plans
	@$(PYTEST) --quiet $(first_half)
test-unit-rest: test-tools ## Its second half
	@$(PYTEST) --quiet $(first_half:%=--ignore=%) tests/unit
test-roles: test-tools ## Each role on a bare host: check mode, converge, idempotence, verify
	@tests/.venv/bin/python -m tests.roles
test-e2e: ## A fresh server, used and abused, then removed; another one for workflows, guide and browser; AWS, as moto plays it
	@$(MAKE) --no-print-directory --jobs=3 test-e2e-server test-e2e-flow test-e2e-aws
test-e2e-server: test-tools ## Its first part: the first server and a second one, logins, mistakes, interruptions
	@$(PYTEST) --quiet --capture=sys tests/e2e/test_e2e.py
test-e2e-flow: test-tools ## Its second part: the workflows with act, docs/training.md, the browser, faults, a replaced host
	@LONGRUN_E2E_PART=e2e-flow $(PYTEST) --quiet --capture=sys tests/e2e/test_workflows.py tests/e2e/test_guide.py tests/e2e/test_browser.py tests/e2e/test_faults.py tests/e2e/test_restart.py
test-e2e-aws: test-tools ## Its third part
	@LONGRUN_E2E_PART=e2e-aws $(PYTEST) --quiet --capture=sys tests/e2e/test_aws.py
test-vm: test-tools ## The same on a virtual machine of libvirt, and another one in its place
	@$(PYTEST) --quiet --capture=sys tests/e2e/vm
bench: test-tools ## Stock, tuned stock and ours side by side, on a host of its own: docs/benchmarks/server.md; ARGS="--quick --only create,get"
	@tests/.venv/bin/python -m tests.bench.server $(ARGS)
bench-gate: test-tools ## How often the gate cries wolf, and how often it sees one: docs/benchmarks/gate.md
	@tests/.venv/bin/python -m tests.bench.gate
bench-training: test-tools ## What recording costs a training, and 1,000 runs the gate: docs/benchmarks/training.md; against a running server
	@tests/.venv/bin/python -m tests.bench.training --env '$(ENV)'
lock: ## Renew the lock files after a change of requirements/*.in
	@controller/lock
