"""What stands between `driver` and a shared library: the layout of fsd_npu.h, loading, calling, and what is believed."""
