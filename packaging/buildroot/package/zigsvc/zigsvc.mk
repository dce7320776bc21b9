################################################################################
#
# zigsvc
#
################################################################################

ZIGSVC_VERSION = 0.2.0
ZIGSVC_SOURCE = zigsvc-$(ZIGSVC_VERSION).tar.gz
# Made by `packaging/tarball source`. Buildroot adds the dependencies to it.
ZIGSVC_PROJECT = $(realpath $(BR2_EXTERNAL_ZIGSVC_PATH)/../..)
ZIGSVC_SITE = file://$(ZIGSVC_PROJECT)/target/package
ZIGSVC_LICENSE = MIT or Apache-2.0
ZIGSVC_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

# Each commit makes another tarball.
BR_NO_CHECK_HASH_FOR += $(ZIGSVC_SOURCE)

ZIGSVC_PROFILE = $(if $(BR2_ENABLE_DEBUG),debug,release)

# Not `cargo install`, which puts programs into /usr/bin.
define ZIGSVC_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/$(ZIGSVC_PROFILE)/zigsvc \
		$(TARGET_DIR)/usr/sbin/zigsvc
	$(INSTALL) -D -m 0644 $(@D)/init.d/zigsvc.conf \
		$(TARGET_DIR)/etc/zigsvc.conf
endef

define ZIGSVC_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/init.d/zigsvc \
		$(TARGET_DIR)/etc/init.d/S50zigsvc
	$(INSTALL) -D -m 0644 $(@D)/init.d/zigsvc.default \
		$(TARGET_DIR)/etc/default/zigsvc
endef

define ZIGSVC_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/init.d/zigsvc.openrc \
		$(TARGET_DIR)/etc/init.d/zigsvc
endef

define ZIGSVC_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/init.d/zigsvc.service \
		$(TARGET_DIR)/usr/lib/systemd/system/zigsvc.service
endef

$(eval $(cargo-package))
