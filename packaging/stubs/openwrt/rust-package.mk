# Stands in for lang/rust/rust-package.mk of OpenWrt's feed "packages". With BINARY
# the program is that file. Without BINARY it is compiled as in OpenWrt: by `cargo
# install`, with a compiler driver as the linker and dynamic linking as the target's
# default.
RUST_ARCH_DEPENDS := @(aarch64||arm||x86_64)
ifneq ($(BINARY),)
define Build/Compile/Cargo
	$(INSTALL_DIR) $(PKG_INSTALL_DIR)/bin
	$(INSTALL_BIN) $(BINARY) $(PKG_INSTALL_DIR)/bin/zigsvc
endef
else
define Build/Compile/Cargo
	RUSTFLAGS="-Ctarget-feature=-crt-static -Clinker=gcc" CARGO_TARGET_DIR=$(PKG_BUILD_DIR)/target \
		cargo install --quiet --profile $(CARGO_PKG_PROFILE) --root $(PKG_INSTALL_DIR) \
		--path $(PKG_BUILD_DIR) --locked
endef
endif
Build/Compile = $(call Build/Compile/Cargo)
# This has only the parts that the package itself does not have.
define RustBinPackage
$(if $(Package/$(1)/install),,$(error the program would go to /usr/bin))
endef
