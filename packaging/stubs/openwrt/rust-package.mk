# Stands in for lang/rust/rust-package.mk and rust-values.mk of OpenWrt's feed "packages", as
# they are at its commit 0521bb56793387788798e4a69b84d96766ed54e2: the same variables with the
# same values, for this machine instead of a target. With BINARY the program is that file, and
# nothing is compiled.
CARGO_BUILD_TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
CARGO_RUSTFLAGS += -Ctarget-feature=-crt-static -Clink-arg=-fuse-ld=bfd
CARGO_PKG_PROFILE := release

CARGO_PKG_CONFIG_VARS = CARGO_BUILD_TARGET=$(CARGO_BUILD_TARGET) RUSTFLAGS="$(CARGO_RUSTFLAGS)" \
	$(addprefix CARGO_PROFILE_RELEASE_,CODEGEN_UNITS=1 DEBUG=false DEBUG_ASSERTIONS=false LTO=true \
	OPT_LEVEL=z OVERFLOW_CHECKS=true PANIC=unwind RPATH=false) \
	CARGO_TARGET_$(shell echo $(CARGO_BUILD_TARGET) | tr a-z- A-Z_)_LINKER=gcc
CARGO_PKG_VARS = $(CARGO_PKG_CONFIG_VARS) CC=gcc MAKEFLAGS=

ifneq ($(BINARY),)
define Build/Compile/Cargo
	$(INSTALL_DIR) $(PKG_INSTALL_DIR)/bin
	$(INSTALL_BIN) $(BINARY) $(PKG_INSTALL_DIR)/bin/zigsvc
endef
else
define Build/Compile/Cargo
	+$(CARGO_PKG_VARS) cargo install --quiet --no-track --profile $(CARGO_PKG_PROFILE) --locked \
		--root $(PKG_INSTALL_DIR) --path $(PKG_BUILD_DIR)/$(1) $(2)
endef
endif
Build/Compile = $(call Build/Compile/Cargo)
# This has only the parts that the package itself does not have.
define RustBinPackage
$(if $(Package/$(1)/install),,$(error the program would go to /usr/bin))
endef
