include $(sort $(wildcard $(BR2_EXTERNAL_ZIGSVC_PATH)/package/*/*.mk))
