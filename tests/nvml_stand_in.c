/* Stands in for libnvidia-ml.so.1: two GPUs, and a test's hand on what they count and how they fail. */

#include <stddef.h>
#include <string.h>

#define GPUS 2
#ifndef FAILURE_OF_GPU_1 /* for a process that no test's hand can reach */
#define FAILURE_OF_GPU_1 0
#endif
typedef struct { unsigned long long energy_mj; unsigned int power_mw; int failure; } gpu;
typedef struct { unsigned long long total, free, used; } memory;

static const char *uuids[GPUS] = {"GPU-aaaa", "GPU-bbbb"};
static gpu gpus[GPUS] = {{0, 0, 0}, {0, 0, FAILURE_OF_GPU_1}};
static unsigned int gpu_count = GPUS;
static int init_failure, sessions;

void hand_reset(void) { memset(gpus, 0, sizeof gpus); gpu_count = GPUS; init_failure = sessions = 0; }
void hand_energy(int index, unsigned long long mj) { gpus[index].energy_mj = mj; }
void hand_power(int index, unsigned int mw) { gpus[index].power_mw = mw; }
void hand_fail(int index, int code) { gpus[index].failure = code; }
void hand_fail_init(int code) { init_failure = code; }
void hand_count(unsigned int count) { gpu_count = count; }
int hand_sessions(void) { return sessions; }

int nvmlInit_v2(void) {
    if (!init_failure) sessions++;
    return init_failure;
}
int nvmlShutdown(void) { sessions--; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = gpu_count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, gpu **device) {
    if (index >= gpu_count) return 2;
    *device = &gpus[index];
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, gpu **device) {
    for (int index = 0; index < GPUS; index++)
        if (!strcmp(uuid, uuids[index])) { *device = &gpus[index]; return 0; }
    return 6;
}
int nvmlDeviceGetPowerUsage(gpu *device, unsigned int *mw) { *mw = device->power_mw; return device->failure; }
int nvmlDeviceGetName(gpu *device, char *name, unsigned int length) {
    strncpy(name, device == gpus ? "NVIDIA Stand-in" : "NVIDIA Other Stand-in", length);
    return device->failure;
}
#ifndef WITHOUT_MEMORY
int nvmlDeviceGetMemoryInfo(gpu *device, memory *info) {
    info->total = 8ULL << 30;
    info->used = 1ULL << 30;
    info->free = info->total - info->used;
    return device->failure;
}
#endif
#ifndef WITHOUT_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(gpu *device, unsigned long long *mj) {
    *mj = device->energy_mj;
    return device->failure;
}
#endif
#ifndef WITHOUT_WORDS
const char *nvmlErrorString(int code) {
    return code == 3 ? "Not Supported" : code == 15 ? "GPU is lost" : code == 9 ? "Driver Not Loaded" : "Unknown Error";
}
#endif
