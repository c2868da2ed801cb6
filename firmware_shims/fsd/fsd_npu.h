/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsd_npu.h: what a driver library for the FSD computer's neural processors (NPUs) exports.
 *
 * No SDK of the FSD computer is public. This is parkwatt's own interface, for whoever has the hardware:
 * implement it as a shared library, and the `fsd` backend runs on it. C11, without dependencies.
 *
 *     fsd_npu_abi_version
 *     fsd_npu_open, fsd_npu_query
 *         fsd_npu_load, fsd_npu_describe, fsd_npu_describe_tensor
 *             fsd_npu_bind
 *                 fsd_npu_submit, fsd_npu_wait          as often as wanted, fsd_npu_abort at any time
 *         fsd_npu_unload
 *     fsd_npu_close
 *
 * A device has 1 to 64 NPUs. Several programs may be loaded on one NPU; it runs one at a time. A run is
 * `under way` from fsd_npu_submit until fsd_npu_wait has told how it ended.
 *
 * VERSIONS
 *   The version is major << 16 | minor. A library and its caller understand each other when their majors are
 *   the same, whichever minor is newer. Within a major nothing is removed, reordered or given another meaning;
 *   a new minor appends fields to structs, and adds functions and numbers of enumerations.
 *     1.0  runs programs: whatever is not marked
 *     1.1  tells energy and temperature: whatever is marked "since 1.1"
 *   A library exports every function of the version that it claims. A caller does not call functions that are
 *   newer than that, and treats them as having answered FSD_NPU_UNSUPPORTED.
 *
 * STRUCTS
 *   Every struct begins with `struct_bytes` and has no padding. The caller sets it to the size that it knows.
 *     filled by the library: it writes no byte beyond the smaller of that size and its own, and sets
 *       `struct_bytes` to the number of bytes that it has filled. The caller has zeroed the rest.
 *     read by the library: it reads no byte beyond the smaller of the two; what is missing counts as zero.
 *   `reserved` is zero. Text is UTF-8 on one line, ends with a zero byte, and is the library's own: cut, never
 *   overlong.
 *
 * THREADS
 *   - One thread at a time makes calls on a device and on its programs. Only fsd_npu_abort may come from any
 *     thread, at any time from when fsd_npu_load has returned the program until fsd_npu_unload or
 *     fsd_npu_close is called: also beside every other call, and beside itself.
 *   - So fsd_npu_abort takes no lock that another call holds while it computes, sleeps or waits.
 *   - Devices are independent: two threads may drive two devices. Nothing in this interface needs a global
 *     variable; one that a library has all the same it guards itself.
 *   - fsd_npu_wait sleeps; it does not spin. No other call waits for a run, but for fsd_npu_unload and
 *     fsd_npu_close, which end it first.
 *   - Threads that the library starts block every signal, and are gone when fsd_npu_close returns.
 *   - No call is safe in a signal handler. A device does not survive fork(2): the child may only exec or exit.
 *   - The library installs no signal handler, writes to no standard stream, ends no process, and lets no C++
 *     exception out.
 *
 * MEMORY
 *   - Devices and programs are the library's, from the call that returns them to the one that ends them.
 *   - Arguments are the caller's. The library uses them during the call only, the bytes of a program too.
 *   - The exception are buffers given to fsd_npu_bind: the memory that they point at stays valid, and at its
 *     address, until another fsd_npu_bind of the same program succeeds or fsd_npu_unload returns. While a run
 *     is under way the caller does not write inputs and does not touch outputs. The library writes inputs
 *     never, and outputs only while a run is under way.
 *   - Buffers have no particular alignment; a library whose DMA needs one copies.
 *
 * The computer belongs to its owner: the process that has loaded the library may be killed (SIGKILL) in any
 * call. The NPUs must then stop touching its memory, and open for the next process.
 */
#ifndef FSD_NPU_H
#define FSD_NPU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FSD_NPU_API __attribute__((visibility("default")))
#else
#define FSD_NPU_API
#endif

#define FSD_NPU_ABI_MAJOR 1u
#define FSD_NPU_ABI_MINOR 1u
#define FSD_NPU_ABI_VERSION (FSD_NPU_ABI_MAJOR << 16 | FSD_NPU_ABI_MINOR)

#define FSD_NPU_MAX_NPUS 64
#define FSD_NPU_MAX_TENSORS 256
#define FSD_NPU_MAX_DIMS 8
#define FSD_NPU_NAME_BYTES 64
#define FSD_NPU_TENSOR_NAME_BYTES 256
#define FSD_NPU_OPERATORS_BYTES 2048

#define FSD_NPU_FOREVER UINT64_MAX
#define FSD_NPU_UNKNOWN UINT64_MAX

/*
 * What calls return, as int32_t. Every call may return FSD_NPU_BAD_ARGUMENT, FSD_NPU_DEVICE_LOST and
 * FSD_NPU_INTERNAL; what else it may return stands beside it. A call that fails has changed nothing, unless
 * it says otherwise.
 */
enum fsd_npu_code {
    FSD_NPU_OK = 0,
    FSD_NPU_NO_DEVICE = 1,    /* there is none of this index */
    FSD_NPU_BUSY = 2,         /* another process has the device, or the NPU has a run under way */
    FSD_NPU_BAD_ARGUMENT = 3, /* the caller's mistake */
    FSD_NPU_BAD_PROGRAM = 4,  /* not a program, or of a format that this library does not take */
    FSD_NPU_UNSUPPORTED = 5,  /* an operator, a shape or a call that this library or device has not got */
    FSD_NPU_NO_MEMORY = 6,    /* of the device or of the process */
    FSD_NPU_TIMED_OUT = 7,    /* the run goes on: wait again, or abort it */
    FSD_NPU_ABORTED = 8,      /* the run has ended because of fsd_npu_abort */
    FSD_NPU_DEVICE_LOST = 9,  /* runs are lost, every further call says this, nothing but unload and close helps */
    FSD_NPU_OVERHEATED = 10,  /* too hot to run now; no run is under way on this NPU */
    FSD_NPU_INTERNAL = 11     /* a defect of library, firmware or hardware */
};

/* Element types; the names are those of the Open Inference Protocol. Elements are little-endian. */
enum fsd_npu_datatype {
    FSD_NPU_BOOL = 1, /* one byte, 0 or 1 */
    FSD_NPU_UINT8 = 2,
    FSD_NPU_UINT16 = 3,
    FSD_NPU_UINT32 = 4,
    FSD_NPU_UINT64 = 5,
    FSD_NPU_INT8 = 6,
    FSD_NPU_INT16 = 7,
    FSD_NPU_INT32 = 8,
    FSD_NPU_INT64 = 9,
    FSD_NPU_FP16 = 10,
    FSD_NPU_FP32 = 11,
    FSD_NPU_FP64 = 12
};

/* Where the figures of energy come from. What was computed from a model is never called a counter. */
enum fsd_npu_energy_source {
    FSD_NPU_ENERGY_NONE = 0,
    FSD_NPU_ENERGY_COUNTER = 1, /* measured by the device */
    FSD_NPU_ENERGY_MODEL = 2    /* predicted, from cycles and the like */
};

struct fsd_npu_device;  /* opaque, the library's */
struct fsd_npu_program; /* opaque, the library's; belongs to a device */

/* Read by the library. */
struct fsd_npu_open_params {
    uint32_t struct_bytes;
    uint32_t abi_version;      /* the caller's FSD_NPU_ABI_VERSION */
    uint32_t device_index;     /* from 0 */
    uint32_t error_text_bytes; /* size of what error_text points at */
    char *error_text;          /* where a call that fails says why, as there is no device yet to be asked */
};

/* Filled by the library. */
struct fsd_npu_capabilities {
    uint32_t struct_bytes;
    uint32_t npus;                             /* 1 to FSD_NPU_MAX_NPUS, numbered from 0 */
    uint64_t sram_bytes;                       /* of each NPU, not 0 */
    uint64_t clock_hz;                         /* of each NPU, not 0 */
    uint64_t macs_per_cycle;                   /* multiply-accumulates of each NPU, int8, not 0 */
    char name[FSD_NPU_NAME_BYTES];             /* of the chip, for people */
    char version[FSD_NPU_NAME_BYTES];          /* of library and firmware: changes when costs or results may */
    char program_format[FSD_NPU_NAME_BYTES];   /* of what fsd_npu_load takes, with its own version */
    char operators[FSD_NPU_OPERATORS_BYTES];   /* ONNX names of what programs may hold, a space between two */
    uint32_t energy_source;                    /* enum fsd_npu_energy_source; since 1.1, none before */
    uint32_t reserved;                         /* since 1.1 */
};
#define FSD_NPU_CAPABILITIES_1_0_BYTES offsetof(struct fsd_npu_capabilities, energy_source)

/* Filled by the library. Tensors are numbered from 0: the inputs, then the outputs. */
struct fsd_npu_description {
    uint32_t struct_bytes;
    uint32_t npu;     /* on which the program is loaded */
    uint32_t inputs;  /* at least 1 */
    uint32_t outputs; /* at least 1; both together at most FSD_NPU_MAX_TENSORS */
};

/*
 * Filled by the library. A buffer of this tensor holds rows of `row_bytes`, one after the other, row-major:
 * as many as fsd_npu_submit is told.
 */
struct fsd_npu_tensor {
    uint32_t struct_bytes;
    uint32_t datatype;                    /* enum fsd_npu_datatype */
    uint32_t dims;                        /* 0 to FSD_NPU_MAX_DIMS: of one row */
    uint32_t reserved;
    uint64_t row_shape[FSD_NPU_MAX_DIMS]; /* the first `dims` are not 0 */
    uint64_t row_bytes;                   /* the product of them times the size of an element */
    char name[FSD_NPU_TENSOR_NAME_BYTES]; /* no two inputs and no two outputs have the same */
};

/* Read by the library. */
struct fsd_npu_buffer {
    uint32_t struct_bytes;
    uint32_t reserved;
    void *data;
    uint64_t bytes;
};

/* Filled by the library: what a run took. */
struct fsd_npu_completion {
    uint32_t struct_bytes;
    uint32_t reserved;
    uint64_t device_ns; /* nanoseconds for which the NPU worked on it, waiting for memory included */
    uint64_t cycles;    /* of clock_hz */
    uint64_t energy_nj; /* nanojoules, FSD_NPU_UNKNOWN where nothing can tell; since 1.1, unknown before */
};
#define FSD_NPU_COMPLETION_1_0_BYTES offsetof(struct fsd_npu_completion, energy_nj)

/* FSD_NPU_ABI_VERSION of the header that the library was written for. The first call, from any thread. */
FSD_NPU_API uint32_t fsd_npu_abi_version(void);

/*
 * Opens a device for this process alone, and brings up its NPUs. What the library needs of the system (device
 * files, firmware, configuration) it opens in here: the process is confined later and finds nothing more.
 *
 * FSD_NPU_NO_DEVICE, FSD_NPU_BUSY, FSD_NPU_NO_MEMORY, FSD_NPU_OVERHEATED, FSD_NPU_UNSUPPORTED.
 */
FSD_NPU_API int32_t fsd_npu_open(const struct fsd_npu_open_params *params, struct fsd_npu_device **device);

/* What the device is; never changes while it is open. */
FSD_NPU_API int32_t fsd_npu_query(struct fsd_npu_device *device, struct fsd_npu_capabilities *capabilities);

/*
 * Loads a program of `capabilities.program_format` on an NPU. The bytes are not to be trusted: whatever they
 * are, the answer is a program or a code, and other programs go on.
 *
 * FSD_NPU_BAD_PROGRAM, FSD_NPU_UNSUPPORTED (the text names the operator), FSD_NPU_NO_MEMORY.
 */
FSD_NPU_API int32_t fsd_npu_load(struct fsd_npu_device *device, uint32_t npu, const void *bytes,
                                 uint64_t bytes_count, struct fsd_npu_program **program);

/* What a program is; never changes while it is loaded. */
FSD_NPU_API int32_t fsd_npu_describe(struct fsd_npu_program *program,
                                     struct fsd_npu_description *description);

/* One of its tensors. */
FSD_NPU_API int32_t fsd_npu_describe_tensor(struct fsd_npu_program *program, uint32_t index,
                                            struct fsd_npu_tensor *tensor);

/*
 * Gives the buffers of the next runs: `count` of them, all inputs and then all outputs. All or none: after a
 * failure those of before are bound.
 *
 * FSD_NPU_BUSY while a run of this program is under way, FSD_NPU_NO_MEMORY where they cannot be mapped.
 */
FSD_NPU_API int32_t fsd_npu_bind(struct fsd_npu_program *program, const struct fsd_npu_buffer *const *buffers,
                                 uint32_t count);

/*
 * Starts a run over `rows` rows of the bound buffers, at least 1, and returns.
 *
 * FSD_NPU_BUSY while a run is under way on this NPU, FSD_NPU_OVERHEATED, FSD_NPU_NO_MEMORY.
 * FSD_NPU_BAD_ARGUMENT where nothing is bound or a buffer holds fewer rows.
 */
FSD_NPU_API int32_t fsd_npu_submit(struct fsd_npu_program *program, uint64_t rows);

/*
 * Waits until the run of this program has ended, for `timeout_ns` on CLOCK_MONOTONIC at most: 0 only looks,
 * FSD_NPU_FOREVER has no limit. After FSD_NPU_TIMED_OUT the run is still under way; after every other code,
 * FSD_NPU_BAD_ARGUMENT excepted, it is not, and the NPU touches its buffers no more (of a lost device: once
 * they are unloaded). With FSD_NPU_OK the outputs are complete and `completion` is filled; with any other code
 * both are undefined.
 *
 * FSD_NPU_BAD_ARGUMENT where no run is under way. FSD_NPU_TIMED_OUT, FSD_NPU_ABORTED, FSD_NPU_OVERHEATED.
 */
FSD_NPU_API int32_t fsd_npu_wait(struct fsd_npu_program *program, uint64_t timeout_ns,
                                 struct fsd_npu_completion *completion);

/*
 * Ends the run of this program that is under way, between layers at the latest, and returns without waiting
 * for that: the owner of the car is back. A run that had ended by itself stays as it is; without a run there
 * is nothing to do, and the next one is not affected. From any thread; sets no error text.
 */
FSD_NPU_API int32_t fsd_npu_abort(struct fsd_npu_program *program);

/*
 * Since 1.1. Nanojoules that an NPU has taken since it was opened; it never goes back, and moves while a run
 * is under way at least every 100 ms.
 *
 * FSD_NPU_UNSUPPORTED where `energy_source` is FSD_NPU_ENERGY_NONE.
 */
FSD_NPU_API int32_t fsd_npu_read_energy(struct fsd_npu_device *device, uint32_t npu, uint64_t *energy_nj);

/*
 * Since 1.1. Thousandths of a degree Celsius.
 *
 * FSD_NPU_UNSUPPORTED without a sensor, and while it does not answer: never a made-up figure.
 */
FSD_NPU_API int32_t fsd_npu_read_temperature(struct fsd_npu_device *device, uint32_t npu,
                                             int32_t *temperature_mc);

/*
 * Why the last call on this device or one of its programs failed, fsd_npu_abort excepted; empty where there is
 * nothing to add to the code. At most `text_bytes` are written, the zero byte included. What, which value,
 * which limit and what to do are worth saying: it ends up before an operator.
 */
FSD_NPU_API void fsd_npu_error_text(struct fsd_npu_device *device, char *text, uint32_t text_bytes);

/*
 * Ends a program; aborts its run. When it returns, the NPU touches the buffers no more: a library that cannot
 * be sure of that does not return, and the process will be killed. Does nothing with NULL.
 */
FSD_NPU_API void fsd_npu_unload(struct fsd_npu_program *program);

/* Unloads every program and gives the device back. Does nothing with NULL. */
FSD_NPU_API void fsd_npu_close(struct fsd_npu_device *device);

#ifdef __cplusplus
}
#endif

#endif
