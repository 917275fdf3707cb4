# Onto machines. `make install PREFIX=/usr DESTDIR=/tmp/x` needs no root, `make install` does.
# MODULES is Prosody's plugin folder, if it is not Jitsi's.
PREFIX ?= /usr/local
DESTDIR ?=
export PREFIX DESTDIR MAINTAINER

.PHONY: install install-module uninstall deb debs lock

install: ## Onto this machine, with a virtual environment of its own (PREFIX, DESTDIR)
	@packaging/install.sh install

install-module: ## Only the module for Prosody (DESTDIR, MODULES)
	@packaging/install.sh module

uninstall: ## Off this machine again; config and state stay (PREFIX, DESTDIR)
	@packaging/install.sh uninstall

deb: ## A Debian package in dist/: command, units, config, module; asks nothing
	@packaging/deb.sh

debs: ## The packages for Debian 12 and 13, each made in that Debian (needs root)
	@tools/setup.sh unit boot
	@$(PYTHON) -m tests.booted.build

lock: ## Newer versions of the Python packages that are installed, into packaging/requirements.lock
	@packaging/lock.sh

.PHONY: test-systemd
test-systemd: ## The packages on booted Debian 12 and 13 with a real systemd: upgrade, restart, watchdog, under load (needs root)
	@tools/setup.sh test boot
	@$(PYTHON) -m pytest tests/booted -rP $(PYTEST_ARGS)

.PHONY: image test-container
# make image BUILDER=docker; podman's own format has no health check
BUILDER ?= podman
image: ## A container image of the sidecar, prosody-sidecar:VERSION (BUILDER)
	@$(BUILDER) build $(if $(findstring podman,$(BUILDER)),--format=docker) -f packaging/container/Containerfile \
	    -t prosody-sidecar:$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/__init__.py) .

test-container: ## The image, and the overlay for docker-jitsi-meet, with real containers (needs root)
	@tools/setup.sh test container
	@$(PYTHON) -m pytest tests/container $(PYTEST_ARGS)
