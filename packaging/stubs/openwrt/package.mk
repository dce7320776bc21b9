# Stands in for OpenWrt's include/package.mk: installs a package below
# $(TOPDIR)/root, and writes its scripts and lists beside it.
define BuildPackage
.PHONY: all
all:
	$(foreach name,SECTION CATEGORY TITLE,$(if $(filter $(name):=%,$(Package/$(1))),,$(error Package/$(1) has no $(name))))
	$(Build/Prepare)
	$(Build/Compile)
	$(call Package/$(1)/install,$(TOPDIR)/root)
	$$(shell mkdir -p $(TOPDIR)/control)
	$$(file >$(TOPDIR)/control/conffiles,$$(Package/$(1)/conffiles))
	$$(file >$(TOPDIR)/control/prerm,$$(Package/$(1)/prerm))
	$$(file >$(TOPDIR)/control/description,$$(Package/$(1)/description))
	echo "$(PKG_NAME) $(PKG_VERSION)-$(PKG_RELEASE)" >$(TOPDIR)/control/version
	test -n "$(PKG_LICENSE)" && cd $(PKG_BUILD_DIR) && ls $(PKG_LICENSE_FILES) >/dev/null
endef
