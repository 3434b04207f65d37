# The menu. Each target is one verb; what it does lives in the rooms that it calls. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ENV ?= local

CONTROLLER := .venv/bin/longrun-controller
PYTEST := tests/.venv/bin/pytest

controller = controller/bootstrap .venv requirements/controller.txt controller && exec $(CONTROLLER)
test_tools = controller/bootstrap .venv requirements/controller.txt controller && $(CONTROLLER) tools --test --env local && controller/bootstrap tests/.venv requirements/test.txt controller training

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@printf '\nEach takes ENV=name (default: local).\n'

##@ A server
.PHONY: tools new up provision deploy users
tools: ## Install or build what the other targets need
	@$(controller) tools --env '$(ENV)'
new: ## Make the folder of another server: ENV=staging PLATFORM=libvirt
	@$(controller) new --env '$(ENV)' --platform '$(or $(PLATFORM),container)'
up: ## Everything: tools, provision, deploy, users, one training run
	@$(controller) up --env '$(ENV)'
provision: ## Make the host (Terraform), with PostgreSQL and MinIO on it
	@$(controller) provision --env '$(ENV)'
deploy: ## Install MLflow behind nginx
	@$(controller) deploy --env '$(ENV)'
users: ## Create the users of users.yml that are not there yet
	@$(controller) users --env '$(ENV)'

##@ Its use
.PHONY: train env password status verify
train: ## Train a model against the server: DATA=file.csv TARGET=column ARGS="--seed 7"
	@controller/bootstrap training/.venv requirements/training.txt training
	@$(controller) train --env '$(ENV)' --data '$(DATA)' --target '$(TARGET)' --args '$(ARGS)'
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
.PHONY: test lint test-unit test-roles test-e2e test-e2e-server test-e2e-aws test-vm test-tools lock
test: lint test-unit ## All tests; roles and end to end side by side, for they wait more than they compute
	@$(MAKE) --no-print-directory --jobs=3 test-roles test-e2e-server test-e2e-aws
test-tools:
	@$(test_tools)
lint: test-tools ## Style and static checks
	@tests/lint
test-unit: test-tools ## Python packages, inventory, roles' rules, Terraform plans
	@$(PYTEST) tests/unit
test-roles: test-tools ## Each role on a bare host: check mode, converge, idempotence, verify
	@tests/.venv/bin/python -m tests.roles
test-e2e: ## A fresh server of its own, used and abused, then removed; AWS, as moto plays it
	@$(MAKE) --no-print-directory --jobs=2 test-e2e-server test-e2e-aws
test-e2e-server: test-tools ## Its first half
	@$(PYTEST) --quiet --capture=sys tests/e2e/test_e2e.py
test-e2e-aws: test-tools ## Its second half
	@$(PYTEST) --quiet --capture=sys tests/e2e/test_aws.py
test-vm: test-tools ## The same on a virtual machine of libvirt, and another one in its place
	@$(PYTEST) --quiet --capture=sys tests/e2e/vm
lock: ## Renew the lock files after a change of requirements/*.in
	@controller/lock
