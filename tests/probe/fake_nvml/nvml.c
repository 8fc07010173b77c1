/* A driver library that answers from a script, for tests: loaded by the real pynvml.
 *
 * The environment variable NEMOFIT_FAKE_NVML names the script; it is read at every nvmlInit. Lines
 * are "key = value"; "device" starts a card (or a MIG slice), what comes before is the system.
 *     fail.FUNCTION = CODE   that function answers with the code
 *     hang.FUNCTION = 1      that function never answers
 *     lost_after = FUNCTION  once it has answered, the card is lost (code 15)
 *     mig.SLOT = DEVICE      the slice in a slot of a card; other slots are empty
 * What has no line is NOT_SUPPORTED. -DOLD_DRIVER leaves out what drivers of about 2019 lack.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15, VERSION = 25 };
enum { LINES = 64, DEVICES = 24, KEY = 64, VALUE = 160 };

typedef struct {
    char key[LINES][KEY], value[LINES][VALUE];
    int lines, lost;
} section;

static section everything[DEVICES + 1]; /* 0 is the system */
static int devices;

static const char *get(section *s, const char *key) {
    for (int i = 0; i < s->lines; i++)
        if (!strcmp(s->key[i], key)) return s->value[i];
    return NULL;
}

static const char *get2(section *s, const char *a, const char *b) {
    char key[2 * KEY];
    snprintf(key, sizeof key, "%s.%s", a, b);
    return get(s, key);
}

/* What the script says about a call as such: 0 to go on, or a code. */
static int enter(section *s, const char *function) {
    if (!s) return INVALID;
    if (get2(s, "hang", function)) for (;;) sleep(1000);
    if (s->lost) return LOST;
    const char *after = get(s, "lost_after"), *code = get2(s, "fail", function);
    if (after && !strcmp(after, function)) s->lost = 1;
    return code ? atoi(code) : OK;
}

static int number(section *s, const char *function, const char *key, unsigned long long *out) {
    int code = enter(s, function);
    if (code) return code;
    const char *v = get(s, key);
    if (!v) return NOT_SUPPORTED;
    *out = strtoull(v, NULL, 0);
    return OK;
}

static int text(section *s, const char *function, const char *key, char *out, unsigned size) {
    int code = enter(s, function);
    if (code) return code;
    const char *v = get(s, key);
    if (!v) return NOT_SUPPORTED;
    if (strlen(v) + 1 > size) return TOO_SMALL;
    strcpy(out, v);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    memset(everything, 0, sizeof everything);
    devices = 0;
    const char *path = getenv("NEMOFIT_FAKE_NVML");
    FILE *f = path ? fopen(path, "r") : NULL;
    if (!f) return 9;
    char line[KEY + VALUE];
    while (fgets(line, sizeof line, f)) {
        section *s = &everything[devices];
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "device")) { if (devices < DEVICES) devices++; continue; }
        char *equals = strstr(line, " = ");
        if (!equals || s->lines == LINES) continue;
        *equals = 0;
        snprintf(s->key[s->lines], KEY, "%.63s", line);
        snprintf(s->value[s->lines++], VALUE, "%.159s", equals + 3);
    }
    fclose(f);
    return enter(&everything[0], "nvmlInitWithFlags");
}

int nvmlShutdown(void) { return enter(&everything[0], "nvmlShutdown"); }
const char *nvmlErrorString(int code) { (void)code; return "scripted error"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    return text(&everything[0], "nvmlSystemGetDriverVersion", "driver", out, size);
}

#define NUMBER(function, type, key)                                   \
    int function(section *s, type *out) {                             \
        unsigned long long n = 0;                                     \
        int code = number(s, #function, key, &n);                     \
        if (!code) *out = (type)n;                                    \
        return code;                                                  \
    }
#define TEXT(function, key)                                           \
    int function(section *s, char *out, unsigned size) { return text(s, #function, key, out, size); }

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    unsigned long long n = 0;
    int code = number(&everything[0], "nvmlSystemGetCudaDriverVersion_v2", "cuda", &n);
    if (!code) *out = (int)n;
    return code;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    unsigned long long n = 0;
    int code = number(&everything[0], "nvmlDeviceGetCount_v2", "count", &n);
    if (!code) *out = (unsigned)n;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, section **out) {
    if (index >= (unsigned)devices) return NOT_FOUND;
    *out = &everything[index + 1];
    return enter(*out, "nvmlDeviceGetHandleByIndex_v2");
}

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, "milliwatts")
NUMBER(nvmlDeviceGetDisplayActive, unsigned, "display")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "pcie_gen")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "pcie_lanes")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "pcie_gen_now")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "pcie_lanes_now")

typedef struct {
    char old_bus[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
} pci;

int nvmlDeviceGetPciInfo_v3(section *s, pci *out) {
    unsigned long long id = 0;
    memset(out, 0, sizeof *out);
    int code = text(s, "nvmlDeviceGetPciInfo_v3", "bus", out->address, sizeof out->address);
    if (!code && !number(s, "pci id", "pci_id", &id)) out->id = (unsigned)id;
    return code;
}

int nvmlDeviceGetCudaComputeCapability(section *s, int *major, int *minor) {
    char v[32];
    int code = text(s, "nvmlDeviceGetCudaComputeCapability", "capability", v, sizeof v);
    return code ? code : sscanf(v, "%d.%d", major, minor) == 2 ? OK : NOT_SUPPORTED;
}

typedef struct { unsigned long long total, free, used; } memory_v1;
int nvmlDeviceGetMemoryInfo(section *s, memory_v1 *out) {
    int code = number(s, "nvmlDeviceGetMemoryInfo", "total", &out->total);
    if (!code && number(s, "-", "free", &out->free)) out->free = 0;
    out->used = out->total - out->free;
    return code;
}

typedef struct { unsigned long long total, free, used; } bar1;
int nvmlDeviceGetBAR1MemoryInfo(section *s, bar1 *out) {
    return number(s, "nvmlDeviceGetBAR1MemoryInfo", "bar1", &out->total);
}

int nvmlDeviceGetVirtualizationMode(section *s, unsigned *out) {
    unsigned long long n = 0;
    int code = number(s, "nvmlDeviceGetVirtualizationMode", "virtualization", &n);
    if (!code) *out = (unsigned)n;
    return code;
}

int nvmlDeviceGetMaxClockInfo(section *s, unsigned kind, unsigned *out) {
    unsigned long long n = 0;
    const char *key = kind == 1 ? "sm_mhz" : kind == 2 ? "memory_mhz" : "other_mhz";
    int code = number(s, "nvmlDeviceGetMaxClockInfo", key, &n);
    if (!code) *out = (unsigned)n;
    return code;
}

int nvmlDeviceGetNvLinkState(section *s, unsigned link, unsigned *out) {
    unsigned long long n = 0;
    int code = number(s, "nvmlDeviceGetNvLinkState", "nvlinks", &n);
    if (code) return code;
    if (link >= 18) return INVALID;
    *out = link < n;
    return OK;
}

typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } process;

/* "PID:BYTES PID:BYTES", the list of one kind. */
static int processes(section *s, const char *function, const char *key, unsigned *count, process *out) {
    int code = enter(s, function), n = 0;
    if (code) return code;
    const char *v = get(s, key);
    if (!v) return NOT_SUPPORTED;
    unsigned pid;
    unsigned long long bytes;
    for (int used; sscanf(v, " %u:%llu%n", &pid, &bytes, &used) == 2; v += used, n++)
        if (out && n < (int)*count) out[n] = (process){pid, bytes, ~0u, ~0u};
    int fits = out ? n <= (int)*count : n == 0;
    *count = (unsigned)n;
    return fits ? OK : TOO_SMALL;
}

#define PROCESSES(function, key) \
    int function(section *s, unsigned *n, process *out) { return processes(s, #function, key, n, out); }

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")

#ifndef OLD_DRIVER
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")
NUMBER(nvmlDeviceGetNumGpuCores, unsigned, "cores")
NUMBER(nvmlDeviceGetMemoryBusWidth, unsigned, "bus_bits")
NUMBER(nvmlDeviceGetNumaNodeId, int, "numa")
NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, "mig_max")
NUMBER(nvmlDeviceGetGpuInstanceId, unsigned, "gpu_instance")
NUMBER(nvmlDeviceGetComputeInstanceId, unsigned, "compute_instance")

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
int nvmlDeviceGetMemoryInfo_v2(section *s, memory_v2 *out) {
    if (out->version != 0x02000028) return VERSION;
    int code = number(s, "nvmlDeviceGetMemoryInfo_v2", "total", &out->total);
    if (code) return code;
    if (number(s, "-", "reserved", &out->reserved)) out->reserved = 0;
    if (number(s, "-", "free", &out->free)) out->free = 0;
    out->used = out->total - out->free - out->reserved;
    return OK;
}

int nvmlDeviceGetMigMode(section *s, unsigned *now, unsigned *later) {
    unsigned long long n = 0;
    int code = number(s, "nvmlDeviceGetMigMode", "mig", &n);
    if (!code) *now = *later = (unsigned)n;
    return code;
}

int nvmlDeviceGetMigDeviceHandleByIndex(section *s, unsigned slot, section **out) {
    char key[KEY];
    unsigned long long n = 0;
    snprintf(key, sizeof key, "mig.%u", slot);
    int code = number(s, "nvmlDeviceGetMigDeviceHandleByIndex", key, &n);
    if (code) return code == NOT_SUPPORTED ? NOT_FOUND : code;
    *out = &everything[n + 1];
    return OK;
}

typedef struct {
    unsigned sms, copy, decoder, encoder, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long mib;
} attributes;
int nvmlDeviceGetAttributes_v2(section *s, attributes *out) {
    unsigned long long n = 0;
    memset(out, 0, sizeof *out);
    int code = number(s, "nvmlDeviceGetAttributes_v2", "sms", &n);
    if (code) return code;
    out->sms = (unsigned)n;
    if (!number(s, "-", "slices", &n)) out->gpu_slices = out->compute_slices = (unsigned)n;
    if (!number(s, "-", "mib", &n)) out->mib = n;
    return OK;
}
#endif
