################################################################################
#
# zigsvc
#
################################################################################

ZIGSVC_VERSION = 0.2.0
# Made by `packaging/tarball source`, with its dependencies. Without this line
# Buildroot would want a name with -cargo in it.
# check-package disable RemoveDefaultPackageSourceVariable
ZIGSVC_SOURCE = zigsvc-$(ZIGSVC_VERSION).tar.gz
ZIGSVC_PROJECT = $(realpath $(BR2_EXTERNAL_ZIGSVC_PATH)/../..)
ZIGSVC_SITE = file://$(ZIGSVC_PROJECT)/target/package
ZIGSVC_LICENSE = MIT or Apache-2.0
ZIGSVC_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

# Each commit makes another tarball.
BR_NO_CHECK_HASH_FOR += $(ZIGSVC_SOURCE)

ZIGSVC_FEATURES = \
	$(if $(BR2_PACKAGE_ZIGSVC_JOBS),jobs) \
	$(if $(BR2_PACKAGE_ZIGSVC_SUPERVISOR),supervisor) \
	$(if $(BR2_PACKAGE_ZIGSVC_LOG),log) \
	$(if $(BR2_PACKAGE_ZIGSVC_HUB),hub) \
	$(if $(BR2_PACKAGE_ZIGSVC_COLLECTOR),collector) \
	$(if $(BR2_PACKAGE_ZIGSVC_OPENER),opener) \
	$(if $(BR2_PACKAGE_ZIGSVC_DOCTOR),doctor)

ZIGSVC_CARGO_BUILD_OPTS = \
	--no-default-features \
	--features "$(strip $(ZIGSVC_FEATURES))"

# These override the variables of Buildroot's own environment, which make a
# program of more than twice the size.
ZIGSVC_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1" \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="z"

# This variable overrides .cargo/config.toml. Its first flag is Buildroot's.
ifeq ($(BR2_ARM_CPU_HAS_THUMB2),y)
ZIGSVC_RUSTFLAGS = \
	-Clink-arg=-Wl,--allow-multiple-definition \
	-Ctarget-feature=+thumb-mode \
	-Crelocation-model=static
ZIGSVC_TARGET = CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))
ZIGSVC_CARGO_ENV += $(ZIGSVC_TARGET)_RUSTFLAGS="$(ZIGSVC_RUSTFLAGS)"
endif

ZIGSVC_PROFILE = $(if $(BR2_ENABLE_DEBUG),debug,release)

# Not `cargo install`, which puts programs into /usr/bin.
define ZIGSVC_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/target/$(RUSTC_TARGET_NAME)/$(ZIGSVC_PROFILE)/zigsvc \
		$(TARGET_DIR)/usr/sbin/zigsvc
	$(INSTALL) -D -m 0644 $(@D)/init.d/zigsvc.conf \
		$(TARGET_DIR)/etc/zigsvc.conf
endef

ifeq ($(BR2_PACKAGE_ZIGSVC_JOBS),y)
define ZIGSVC_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/init.d/zigsvc.openrc \
		$(TARGET_DIR)/etc/init.d/zigsvc
endef

define ZIGSVC_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/init.d/zigsvc.service \
		$(TARGET_DIR)/usr/lib/systemd/system/zigsvc.service
endef
else ifeq ($(BR2_PACKAGE_ZIGSVC_SUPERVISOR),y)
define ZIGSVC_DEFAULT_SERVICE
	$(SED) 's/^#SERVICES="jobs"/SERVICES="supervisor"/' \
		$(TARGET_DIR)/etc/default/zigsvc
endef

define ZIGSVC_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/init.d/zigsvc.openrc \
		$(TARGET_DIR)/etc/init.d/zigsvc.supervisor
endef
# systemd does the supervisor's work itself.
endif

# Without one of these two there is no service to start.
ifneq ($(BR2_PACKAGE_ZIGSVC_JOBS)$(BR2_PACKAGE_ZIGSVC_SUPERVISOR),)
define ZIGSVC_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/init.d/zigsvc \
		$(TARGET_DIR)/etc/init.d/S50zigsvc
	$(INSTALL) -D -m 0644 $(@D)/init.d/zigsvc.default \
		$(TARGET_DIR)/etc/default/zigsvc
	$(ZIGSVC_DEFAULT_SERVICE)
endef
endif

$(eval $(cargo-package))
