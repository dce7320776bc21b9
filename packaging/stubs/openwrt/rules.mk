# The names that the Makefile of packaging/openwrt takes from OpenWrt's rules.mk, for
# a test of that Makefile without OpenWrt. Modes are OpenWrt's.
INCLUDE_DIR := $(TOPDIR)/include
BUILD_DIR := $(TOPDIR)/build_dir
CP := cp -fpR
INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_DATA := install -m0644
INSTALL_CONF := install -m0600
