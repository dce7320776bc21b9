# Stands in for OpenWrt's include/package.mk: unpacks PKG_SOURCE, builds the variant
# BUILD_VARIANT, and installs it below $(TOPDIR)/root-$(BUILD_VARIANT). The package's
# scripts and lists are written to $(TOPDIR)/control-$(BUILD_VARIANT).
PKG_BUILD_DIR ?= $(BUILD_DIR)/$(PKG_NAME)-$(BUILD_VARIANT)/$(PKG_NAME)-$(PKG_VERSION)
PKG_INSTALL_DIR ?= $(PKG_BUILD_DIR)/ipkg-install

define BuildPackage
$(eval VARIANT :=)
$(eval $(Package/$(1)))
$(foreach name,SECTION CATEGORY TITLE DEPENDS VARIANT,$(if $($(name)),,$(error Package/$(1) has no $(name))))
$(foreach name,VERSION SOURCE SOURCE_URL HASH LICENSE LICENSE_FILES,$(if $(PKG_$(name)),,$(error PKG_$(name) is not set)))
$(if $(filter $(VARIANT),$(BUILD_VARIANT)),$(call package-rules,$(1),$(TOPDIR)/root-$(VARIANT),$(TOPDIR)/control-$(VARIANT)))
endef

define package-rules
.PHONY: all
all:
	mkdir -p $(PKG_BUILD_DIR)
	tar -C $(PKG_BUILD_DIR)/.. -xzf $(patsubst file://%,%,$(PKG_SOURCE_URL))/$(PKG_SOURCE)
	$$(Build/Compile)
	$$(call Package/$(1)/install,$(2))
	$$(shell mkdir -p $(3))
	$$(file >$(3)/conffiles,$$(Package/$(1)/conffiles))
	$$(file >$(3)/prerm,$$(Package/$(1)/prerm))
	$$(file >$(3)/description,$$(Package/$(1)/description))
	echo "$(1) $(PKG_VERSION)-$(PKG_RELEASE)" >$(3)/version
	echo "$(DEPENDS)" >$(3)/depends
	cd $(PKG_BUILD_DIR) && ls $(PKG_LICENSE_FILES) >/dev/null
endef
