/*
 * A driver of imaginary NPUs that keeps to fsd_npu.h: a thread for each NPU, which adds a number to every
 * element, takes as long as the program says, and counts energy. What an author of a real driver may read first.
 *
 * A program is text:
 *
 *     fsd-reference-1
 *     operator Add         refused unless it is one of OPERATORS
 *     weights 1000         bytes that have to fit into the SRAM, beside those of other programs
 *     input x INT8 4x3     datatype and shape of a row; "-" for a scalar
 *     output y INT8 4x3    each output is the input of the same place ...
 *     add 5                ... plus this, saturated (INT8 only)
 *     steps 10             a row takes so many steps; abort is looked at all the time
 *     step_us 1000         each takes so long
 *     step_nj 250          and so much energy
 *
 * What goes wrong is told by the environment variable FSD_REFERENCE, read when the device is opened:
 *
 *     fail:CALL=CODE crash:CALL hang:CALL      CALL is a function without its prefix, or `run` on the NPU's thread
 *     filled:CALL=BYTES overrun:CALL           what is said of a struct that is filled, and 8 bytes too many
 *     lie:WHAT=NUMBER                          see TELLS
 *
 * and by -DREFERENCE_ABI=VERSION (what it claims to be) and -DWITHOUT_SUBMIT (does not export it).
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fsd_npu.h"

#ifndef REFERENCE_ABI
#define REFERENCE_ABI FSD_NPU_ABI_VERSION
#endif
#define OWN_MINOR (REFERENCE_ABI & 0xffffu)

#define DEVICES 2u
#define NPUS 2u
#define SRAM_BYTES (32u << 20)
#define CYCLES_PER_STEP 1000u
#define OPERATORS " Add Identity " /* a space around each */
#define S_NS 1000000000ull
#define TEMPERATURE_MC 41500

/* Every struct as this library knows it: smaller in an old one, larger in one that is newer than the header. */
#define NEWER_BYTES (OWN_MINOR > FSD_NPU_ABI_MINOR ? 16u : 0u)
#define OWN_BYTES(kind, in_1_0) (OWN_MINOR == 0 ? (uint32_t)(in_1_0) : (uint32_t)sizeof(struct kind) + NEWER_BYTES)

struct npu {
    struct fsd_npu_device *device;
    pthread_t thread;
    pthread_mutex_t lock; /* never held for long: fsd_npu_abort takes it */
    pthread_cond_t changed;
    struct fsd_npu_program *running; /* from submit until wait has told how it ended */
    bool ended, aborted, closing;
    uint64_t begin_ns, aborted_ns, end_ns, steps_done, energy_nj;
};

struct fsd_npu_device {
    char *instructions, error_text[256];
    bool lost;
    struct npu npus[NPUS];
    struct fsd_npu_program *programs;
};

struct buffer {
    unsigned char *data;
    uint64_t bytes;
};

struct fsd_npu_program {
    struct fsd_npu_device *device;
    struct fsd_npu_program *next;
    struct npu *npu;
    uint32_t inputs, outputs;
    struct fsd_npu_tensor tensors[FSD_NPU_MAX_TENSORS];
    struct buffer bound[FSD_NPU_MAX_TENSORS];
    bool is_bound;
    int add;
    unsigned long long weights_bytes, steps, step_us, step_nj;
    uint64_t rows;
};

static const struct {
    const char *name;
    unsigned bytes;
} datatypes[] = {{"", 0},       {"BOOL", 1}, {"UINT8", 1}, {"UINT16", 2}, {"UINT32", 4}, {"UINT64", 8}, {"INT8", 1},
                 {"INT16", 2}, {"INT32", 4}, {"INT64", 8}, {"FP16", 2},   {"FP32", 4},   {"FP64", 8}};

/* ---- what a test tells it to do wrong ---- */

/* The number behind "what:" name "=", `without` where it is not told; 1 where it is told without a number. */
static long long told(const struct fsd_npu_device *device, const char *what, const char *name, long long without) {
    char word[64];
    size_t length = (size_t)snprintf(word, sizeof word, "%s:%s", what, name);
    for (const char *at = device->instructions; (at = strstr(at, word)) != NULL; at += length) {
        if (at[length] == '=') return strtoll(at + length + 1, NULL, 10);
        if (at[length] == ' ' || at[length] == '\0') return 1;
    }
    return without;
}
#define TELLS(device, name, truth) told(device, "lie", name, (long long)(truth))

static int32_t fail(struct fsd_npu_device *device, int32_t code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(device->error_text, sizeof device->error_text, format, arguments);
    va_end(arguments);
    if (code == FSD_NPU_DEVICE_LOST) device->lost = true;
    return code;
}

static void misbehave(const struct fsd_npu_device *device, const char *call) {
    if (told(device, "crash", call, 0)) *(volatile char *)NULL = 0;
    while (told(device, "hang", call, 0)) pause();
}

/* The beginning of every call: what was told for it, and what a lost device answers. */
static int32_t entered(struct fsd_npu_device *device, const char *call) {
    misbehave(device, call);
    int32_t code = (int32_t)told(device, "fail", call, FSD_NPU_OK);
    if (code != FSD_NPU_OK) return fail(device, code, "%s was told to fail", call);
    if (device->lost) return fail(device, FSD_NPU_DEVICE_LOST, "it was lost before");
    return FSD_NPU_OK;
}

/* ---- time, texts, structs ---- */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * S_NS + (uint64_t)now.tv_nsec;
}

static struct timespec as_timespec(uint64_t at_ns) {
    return (struct timespec){.tv_sec = (time_t)(at_ns / S_NS), .tv_nsec = (long)(at_ns % S_NS)};
}

static void set_text(char *to, uint32_t room, const char *text) {
    if (to != NULL && room > 0) snprintf(to, room, "%s", text);
}

/* Fills the caller's struct as far as both know it. Its first member is struct_bytes. */
static void give(struct fsd_npu_device *device, const char *call, void *to, const void *from, uint32_t own_bytes) {
    uint32_t room, filled;
    memcpy(&room, to, sizeof room);
    filled = own_bytes < room ? own_bytes : room;
    memcpy(to, from, filled);
    if (told(device, "overrun", call, 0)) memset((char *)to + room, 0, 8);
    filled = (uint32_t)told(device, "filled", call, filled);
    memcpy(to, &filled, sizeof filled);
}

/* ---- the NPU: its thread holds the lock but while it computes and while it waits ---- */

static void compute_row(const struct fsd_npu_program *program, uint64_t row) {
    for (uint32_t at = 0; at < program->outputs; at++) {
        uint64_t bytes = program->tensors[at].row_bytes;
        const unsigned char *from = program->bound[at].data + row * bytes;
        unsigned char *to = program->bound[program->inputs + at].data + row * bytes;
        memcpy(to, from, bytes);
        for (uint64_t i = 0; program->add != 0 && i < bytes; i++) {
            int sum = (int8_t)from[i] + program->add;
            to[i] = (unsigned char)(sum > INT8_MAX ? INT8_MAX : sum < INT8_MIN ? INT8_MIN : sum);
        }
    }
}

static void run(struct npu *npu) {
    const struct fsd_npu_program *program = npu->running;
    uint64_t until_ns = npu->begin_ns = now_ns();
    for (uint64_t row = 0; row < program->rows && !npu->aborted; row++) {
        for (uint64_t step = 0; step < program->steps && !npu->aborted; step++) {
            until_ns += program->step_us * 1000;
            struct timespec until = as_timespec(until_ns);
            while (!npu->aborted && now_ns() < until_ns)
                pthread_cond_timedwait(&npu->changed, &npu->lock, &until);
            npu->steps_done += !npu->aborted;
            npu->energy_nj += npu->aborted ? 0 : program->step_nj;
        }
        if (npu->aborted) return;
        pthread_mutex_unlock(&npu->lock);
        compute_row(program, row);
        pthread_mutex_lock(&npu->lock);
    }
}

static void *npu_main(void *argument) {
    struct npu *npu = argument;
    pthread_mutex_lock(&npu->lock);
    for (;;) {
        while (!npu->closing && (npu->running == NULL || npu->ended)) pthread_cond_wait(&npu->changed, &npu->lock);
        if (npu->closing) break;
        pthread_mutex_unlock(&npu->lock);
        misbehave(npu->device, "run");
        pthread_mutex_lock(&npu->lock);
        run(npu);
        npu->end_ns = now_ns();
        npu->ended = true;
        pthread_cond_broadcast(&npu->changed);
    }
    pthread_mutex_unlock(&npu->lock);
    return NULL;
}

static bool start_npu(struct npu *npu) {
    sigset_t all, before;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&npu->lock, NULL);
    pthread_cond_init(&npu->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all); /* signals are for the application's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int problem = pthread_create(&npu->thread, NULL, npu_main, npu);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return problem == 0;
}

static void stop_npu(struct npu *npu) {
    pthread_mutex_lock(&npu->lock);
    npu->closing = true;
    pthread_cond_broadcast(&npu->changed);
    pthread_mutex_unlock(&npu->lock);
    pthread_join(npu->thread, NULL);
    pthread_cond_destroy(&npu->changed);
    pthread_mutex_destroy(&npu->lock);
}

/* ---- programs ---- */

static bool add_tensor(struct fsd_npu_program *program, bool output, const char *name, const char *datatype,
                       const char *shape) {
    uint32_t at = program->inputs + program->outputs;
    if (at == FSD_NPU_MAX_TENSORS || (!output && program->outputs > 0)) return false;
    struct fsd_npu_tensor *tensor = &program->tensors[at];
    for (uint32_t i = 1; i < sizeof datatypes / sizeof *datatypes; i++)
        if (strcmp(datatypes[i].name, datatype) == 0) tensor->datatype = i;
    if (tensor->datatype == 0) return false;
    tensor->row_bytes = datatypes[tensor->datatype].bytes;
    for (char *end; strcmp(shape, "-") != 0 && *shape != '\0'; shape = *end == 'x' ? end + 1 : end) {
        unsigned long long size = strtoull(shape, &end, 10);
        if (end == shape || size == 0 || tensor->dims == FSD_NPU_MAX_DIMS) return false;
        tensor->row_shape[tensor->dims++] = size;
        tensor->row_bytes *= size;
    }
    set_text(tensor->name, sizeof tensor->name, name);
    *(output ? &program->outputs : &program->inputs) += 1;
    return true;
}

/* What the programs that are loaded on its NPU leave for this one. */
static unsigned long long free_sram_bytes(const struct fsd_npu_program *program) {
    unsigned long long free_bytes = SRAM_BYTES;
    for (const struct fsd_npu_program *other = program->device->programs; other != NULL; other = other->next)
        if (other->npu == program->npu) free_bytes -= other->weights_bytes;
    return free_bytes;
}

static int32_t read_line(struct fsd_npu_program *program, const char *line) {
    char name[256], datatype[16], shape[128], word[258];
    if (sscanf(line, "input %255s %15s %127s", name, datatype, shape) == 3)
        return add_tensor(program, false, name, datatype, shape) ? FSD_NPU_OK : FSD_NPU_BAD_PROGRAM;
    if (sscanf(line, "output %255s %15s %127s", name, datatype, shape) == 3)
        return add_tensor(program, true, name, datatype, shape) ? FSD_NPU_OK : FSD_NPU_BAD_PROGRAM;
    if (sscanf(line, "operator %255s", name) == 1) {
        snprintf(word, sizeof word, " %s ", name);
        return strstr(OPERATORS, word) != NULL ? FSD_NPU_OK : FSD_NPU_UNSUPPORTED;
    }
    if (sscanf(line, "weights %llu", &program->weights_bytes) == 1)
        return program->weights_bytes <= free_sram_bytes(program) ? FSD_NPU_OK : FSD_NPU_NO_MEMORY;
    bool known = sscanf(line, "add %d", &program->add) == 1 || sscanf(line, "steps %llu", &program->steps) == 1 ||
                 sscanf(line, "step_us %llu", &program->step_us) == 1 ||
                 sscanf(line, "step_nj %llu", &program->step_nj) == 1;
    return known ? FSD_NPU_OK : FSD_NPU_BAD_PROGRAM;
}

static bool fits_together(const struct fsd_npu_program *program) {
    if (program->inputs == 0 || program->inputs != program->outputs) return false;
    for (uint32_t at = 0; at < program->inputs; at++) {
        const struct fsd_npu_tensor *from = &program->tensors[at], *to = &program->tensors[program->inputs + at];
        if (from->row_bytes != to->row_bytes || (program->add != 0 && from->datatype != FSD_NPU_INT8)) return false;
    }
    return true;
}

static int32_t read_program(struct fsd_npu_program *program, const void *bytes, uint64_t bytes_count) {
    char *text = calloc(1, bytes_count + 1), *rest = text;
    if (text == NULL) return fail(program->device, FSD_NPU_NO_MEMORY, "no memory for the program");
    memcpy(text, bytes, bytes_count);
    char *line = strtok_r(text, "\n", &rest);
    int32_t code = line != NULL && strcmp(line, "fsd-reference-1") == 0 ? FSD_NPU_OK : FSD_NPU_BAD_PROGRAM;
    while (code == FSD_NPU_OK && (line = strtok_r(NULL, "\n", &rest)) != NULL) code = read_line(program, line);
    if (code != FSD_NPU_OK)
        fail(program->device, code, "'%.100s' cannot be used", line != NULL ? line : "");
    else if (!fits_together(program))
        code = fail(program->device, FSD_NPU_BAD_PROGRAM, "inputs and outputs do not go together");
    free(text);
    return code;
}

/* ---- fsd_npu.h ---- */

uint32_t fsd_npu_abi_version(void) { return REFERENCE_ABI; }

static int32_t start_device(struct fsd_npu_device *device, uint32_t index) {
    int32_t code = entered(device, "open");
    if (code != FSD_NPU_OK) return code;
    if (index >= DEVICES)
        return fail(device, FSD_NPU_NO_DEVICE, "there is no device %u, only 0 to %u", index, DEVICES - 1);
    for (uint32_t at = 0; at < NPUS; at++) {
        device->npus[at].device = device;
        if (start_npu(&device->npus[at])) continue;
        while (at-- > 0) stop_npu(&device->npus[at]);
        return fail(device, FSD_NPU_NO_MEMORY, "no more threads");
    }
    return FSD_NPU_OK;
}

int32_t fsd_npu_open(const struct fsd_npu_open_params *params, struct fsd_npu_device **opened) {
    struct fsd_npu_open_params known = {0};
    memcpy(&known, params, params->struct_bytes < sizeof known ? params->struct_bytes : sizeof known);
    struct fsd_npu_device *device = calloc(1, sizeof *device);
    if (device == NULL) return FSD_NPU_NO_MEMORY;
    const char *instructions = getenv("FSD_REFERENCE");
    device->instructions = strdup(instructions != NULL ? instructions : "");
    int32_t code = device->instructions != NULL ? start_device(device, known.device_index) : FSD_NPU_NO_MEMORY;
    if (code == FSD_NPU_OK && !TELLS(device, "nothing", 0)) {
        *opened = device;
        return FSD_NPU_OK;
    }
    set_text(known.error_text, known.error_text_bytes, device->error_text);
    if (code == FSD_NPU_OK) {
        fsd_npu_close(device);
    } else {
        free(device->instructions);
        free(device);
    }
    return code;
}

int32_t fsd_npu_query(struct fsd_npu_device *device, struct fsd_npu_capabilities *capabilities) {
    int32_t code = entered(device, "query");
    if (code != FSD_NPU_OK) return code;
    struct {
        struct fsd_npu_capabilities known;
        char newer[16];
    } own = {0};
    own.known.npus = (uint32_t)TELLS(device, "npus", NPUS);
    own.known.sram_bytes = (uint64_t)TELLS(device, "sram_bytes", SRAM_BYTES);
    own.known.clock_hz = (uint64_t)TELLS(device, "clock_hz", 2 * S_NS);
    own.known.macs_per_cycle = (uint64_t)TELLS(device, "macs_per_cycle", 96 * 96);
    own.known.energy_source = (uint32_t)TELLS(device, "energy_source", FSD_NPU_ENERGY_COUNTER);
    set_text(own.known.name, sizeof own.known.name, "reference");
    set_text(own.known.version, sizeof own.known.version, "1.0");
    set_text(own.known.program_format, sizeof own.known.program_format, "fsd-reference-1");
    set_text(own.known.operators, sizeof own.known.operators, TELLS(device, "no_operators", 0) ? " " : OPERATORS);
    if (TELLS(device, "endless_name", 0)) memset(own.known.name, 'x', sizeof own.known.name);
    own.known.name[0] = (char)TELLS(device, "name_begins", own.known.name[0]);
    give(device, "query", capabilities, &own, OWN_BYTES(fsd_npu_capabilities, FSD_NPU_CAPABILITIES_1_0_BYTES));
    return FSD_NPU_OK;
}

int32_t fsd_npu_load(struct fsd_npu_device *device, uint32_t npu, const void *bytes, uint64_t bytes_count,
                     struct fsd_npu_program **loaded) {
    int32_t code = entered(device, "load");
    if (code != FSD_NPU_OK) return code;
    if (npu >= NPUS) return fail(device, FSD_NPU_BAD_ARGUMENT, "there is no NPU %u", npu);
    if (TELLS(device, "no_program", 0)) return FSD_NPU_OK;
    struct fsd_npu_program *program = calloc(1, sizeof *program);
    if (program == NULL) return fail(device, FSD_NPU_NO_MEMORY, "no memory for the program");
    program->device = device;
    program->npu = &device->npus[npu];
    code = read_program(program, bytes, bytes_count);
    if (code != FSD_NPU_OK) {
        free(program);
        return code;
    }
    program->next = device->programs;
    *loaded = device->programs = program;
    return FSD_NPU_OK;
}

int32_t fsd_npu_describe(struct fsd_npu_program *program, struct fsd_npu_description *description) {
    struct fsd_npu_device *device = program->device;
    int32_t code = entered(device, "describe");
    if (code != FSD_NPU_OK) return code;
    struct {
        struct fsd_npu_description known;
        char newer[16];
    } own = {0};
    own.known.npu = (uint32_t)TELLS(device, "npu", program->npu - device->npus);
    own.known.inputs = (uint32_t)TELLS(device, "inputs", program->inputs);
    own.known.outputs = (uint32_t)TELLS(device, "outputs", program->outputs);
    give(device, "describe", description, &own, OWN_BYTES(fsd_npu_description, sizeof own.known));
    return FSD_NPU_OK;
}

int32_t fsd_npu_describe_tensor(struct fsd_npu_program *program, uint32_t index, struct fsd_npu_tensor *tensor) {
    struct fsd_npu_device *device = program->device;
    int32_t code = entered(device, "describe_tensor");
    if (code != FSD_NPU_OK) return code;
    if (index >= program->inputs + program->outputs)
        return fail(device, FSD_NPU_BAD_ARGUMENT, "there is no tensor %u", index);
    struct {
        struct fsd_npu_tensor known;
        char newer[16];
    } own = {.known = program->tensors[index]};
    own.known.datatype = (uint32_t)TELLS(device, "datatype", own.known.datatype);
    own.known.dims = (uint32_t)TELLS(device, "dims", own.known.dims);
    own.known.row_shape[0] = (uint64_t)TELLS(device, "size", own.known.row_shape[0]);
    own.known.row_bytes = (uint64_t)TELLS(device, "row_bytes", own.known.row_bytes);
    give(device, "describe_tensor", tensor, &own, OWN_BYTES(fsd_npu_tensor, sizeof own.known));
    return FSD_NPU_OK;
}

/* Whether a run of `program`, or of any program of its NPU with `of_any`, is under way. */
static bool is_under_way(struct fsd_npu_program *program, bool of_any) {
    pthread_mutex_lock(&program->npu->lock);
    bool is = of_any ? program->npu->running != NULL : program->npu->running == program;
    pthread_mutex_unlock(&program->npu->lock);
    return is;
}

int32_t fsd_npu_bind(struct fsd_npu_program *program, const struct fsd_npu_buffer *const *buffers, uint32_t count) {
    struct fsd_npu_device *device = program->device;
    int32_t code = entered(device, "bind");
    if (code != FSD_NPU_OK) return code;
    if (count != program->inputs + program->outputs)
        return fail(device, FSD_NPU_BAD_ARGUMENT, "%u buffers for %u tensors", count, program->inputs * 2);
    if (is_under_way(program, false)) return fail(device, FSD_NPU_BUSY, "the run that uses the buffers is under way");
    for (uint32_t at = 0; at < count; at++) {
        struct fsd_npu_buffer known = {0};
        memcpy(&known, buffers[at], buffers[at]->struct_bytes < sizeof known ? buffers[at]->struct_bytes : sizeof known);
        program->bound[at] = (struct buffer){known.data, known.bytes};
    }
    program->is_bound = true;
    return FSD_NPU_OK;
}

#ifdef WITHOUT_SUBMIT
#define fsd_npu_submit fsd_npu_forgotten
int32_t fsd_npu_submit(struct fsd_npu_program *program, uint64_t rows);
#endif
int32_t fsd_npu_submit(struct fsd_npu_program *program, uint64_t rows) {
    struct fsd_npu_device *device = program->device;
    int32_t code = entered(device, "submit");
    if (code != FSD_NPU_OK) return code;
    if (!program->is_bound || rows == 0) return fail(device, FSD_NPU_BAD_ARGUMENT, "nothing is bound, or no rows");
    for (uint32_t at = 0; at < program->inputs + program->outputs; at++)
        if (program->bound[at].bytes / program->tensors[at].row_bytes < rows)
            return fail(device, FSD_NPU_BAD_ARGUMENT, "buffer %u holds fewer rows", at);
    if (is_under_way(program, true)) return fail(device, FSD_NPU_BUSY, "NPU %u has a run under way",
                                                 (unsigned)(program->npu - device->npus));
    struct npu *npu = program->npu;
    pthread_mutex_lock(&npu->lock);
    program->rows = rows;
    npu->running = program;
    npu->ended = npu->aborted = false;
    npu->steps_done = 0;
    pthread_cond_broadcast(&npu->changed);
    pthread_mutex_unlock(&npu->lock);
    return FSD_NPU_OK;
}

/* Waits with the lock held; whether the run has ended by then. */
static bool ends_within(struct npu *npu, uint64_t timeout_ns) {
    uint64_t now = now_ns(), until_ns = timeout_ns < INT64_MAX - now ? now + timeout_ns : INT64_MAX;
    struct timespec until = as_timespec(until_ns);
    while (!npu->ended && now_ns() < until_ns) pthread_cond_timedwait(&npu->changed, &npu->lock, &until);
    return npu->ended;
}

int32_t fsd_npu_wait(struct fsd_npu_program *program, uint64_t timeout_ns, struct fsd_npu_completion *completion) {
    struct fsd_npu_device *device = program->device;
    struct npu *npu = program->npu;
    misbehave(device, "wait");
    if (!is_under_way(program, false)) return fail(device, FSD_NPU_BAD_ARGUMENT, "no run of this program is under way");
    pthread_mutex_lock(&npu->lock);
    bool ended = ends_within(npu, timeout_ns), aborted = npu->aborted;
    struct {
        struct fsd_npu_completion known;
        char newer[16];
    } own = {.known = {.device_ns = npu->end_ns - npu->begin_ns, .cycles = npu->steps_done * CYCLES_PER_STEP}};
    own.known.energy_nj = (uint64_t)TELLS(device, "energy_nj", npu->steps_done * program->step_nj);
    uint64_t late_us = (npu->end_ns - npu->aborted_ns) / 1000;
    if (ended) npu->running = NULL;
    pthread_mutex_unlock(&npu->lock);

    if (!ended) return fail(device, FSD_NPU_TIMED_OUT, "after %llu us", (unsigned long long)timeout_ns / 1000);
    if (aborted) return fail(device, FSD_NPU_ABORTED, "%llu us after abort", (unsigned long long)late_us);
    int32_t code = entered(device, "wait");
    if (code != FSD_NPU_OK) return code;
    give(device, "wait", completion, &own, OWN_BYTES(fsd_npu_completion, FSD_NPU_COMPLETION_1_0_BYTES));
    return FSD_NPU_OK;
}

int32_t fsd_npu_abort(struct fsd_npu_program *program) {
    struct npu *npu = program->npu;
    misbehave(program->device, "abort");
    pthread_mutex_lock(&npu->lock);
    if (npu->running == program && !npu->ended && !npu->aborted) {
        npu->aborted = true;
        npu->aborted_ns = now_ns();
        pthread_cond_broadcast(&npu->changed);
    }
    pthread_mutex_unlock(&npu->lock);
    return (int32_t)told(program->device, "fail", "abort", FSD_NPU_OK);
}

#if OWN_MINOR >= 1
int32_t fsd_npu_read_energy(struct fsd_npu_device *device, uint32_t npu, uint64_t *energy_nj) {
    int32_t code = entered(device, "read_energy");
    if (code != FSD_NPU_OK) return code;
    if (npu >= NPUS) return fail(device, FSD_NPU_BAD_ARGUMENT, "there is no NPU %u", npu);
    pthread_mutex_lock(&device->npus[npu].lock);
    *energy_nj = device->npus[npu].energy_nj;
    pthread_mutex_unlock(&device->npus[npu].lock);
    return FSD_NPU_OK;
}

int32_t fsd_npu_read_temperature(struct fsd_npu_device *device, uint32_t npu, int32_t *temperature_mc) {
    int32_t code = entered(device, "read_temperature");
    if (code != FSD_NPU_OK) return code;
    if (npu >= NPUS) return fail(device, FSD_NPU_BAD_ARGUMENT, "there is no NPU %u", npu);
    *temperature_mc = (int32_t)TELLS(device, "temperature_mc", TEMPERATURE_MC);
    return FSD_NPU_OK;
}
#endif

void fsd_npu_error_text(struct fsd_npu_device *device, char *text, uint32_t text_bytes) {
    set_text(text, text_bytes, TELLS(device, "garbled", 0) ? "\x1b[31m\xff\nred" : device->error_text);
}

void fsd_npu_unload(struct fsd_npu_program *program) {
    if (program == NULL) return;
    struct npu *npu = program->npu;
    misbehave(program->device, "unload");
    pthread_mutex_lock(&npu->lock);
    if (npu->running == program) {
        npu->aborted = true;
        pthread_cond_broadcast(&npu->changed);
        while (!npu->ended) pthread_cond_wait(&npu->changed, &npu->lock);
        npu->running = NULL;
    }
    pthread_mutex_unlock(&npu->lock);
    struct fsd_npu_program **link = &program->device->programs;
    while (*link != program) link = &(*link)->next;
    *link = program->next;
    free(program);
}

void fsd_npu_close(struct fsd_npu_device *device) {
    if (device == NULL) return;
    misbehave(device, "close");
    while (device->programs != NULL) fsd_npu_unload(device->programs);
    for (uint32_t at = 0; at < NPUS; at++) stop_npu(&device->npus[at]);
    free(device->instructions);
    free(device);
}
