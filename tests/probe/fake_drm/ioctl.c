/* Answers the memory queries of Intel's kernel drivers, for tests: preloaded in front of ioctl().
 *
 * Layouts and numbers by include/uapi/drm/xe_drm.h and i915_drm.h of the Linux kernel. The variable
 * NEMOFIT_FAKE_DRM holds "errno CODE" or regions "CLASS:TOTAL:USED ..." (xe) and
 * "CLASS:TOTAL:UNALLOCATED ..." (i915).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

struct xe_query { uint64_t extensions; uint32_t query, size; uint64_t data, reserved[2]; };
struct xe_region {
    uint16_t mem_class, instance;
    uint32_t min_page_size;
    uint64_t total_size, used, cpu_visible_size, cpu_visible_used, reserved[6];
};
struct xe_regions { uint32_t num_mem_regions, pad; struct xe_region mem_regions[8]; };

struct i915_item { uint64_t query_id; int32_t length; uint32_t flags; uint64_t data_ptr; };
struct i915_query { uint32_t num_items, flags; uint64_t items_ptr; };
struct i915_region {
    struct { uint16_t memory_class, memory_instance; } region;
    uint32_t rsvd0;
    uint64_t probed_size, unallocated_size, rsvd1[8];
};
struct i915_regions { uint32_t num_regions, rsvd[3]; struct i915_region regions[8]; };

static unsigned read_regions(uint64_t out[8][3]) {
    const char *text = getenv("NEMOFIT_FAKE_DRM");
    unsigned n = 0, kind;
    unsigned long long a, b;
    for (int used; text && n < 8 && sscanf(text, " %u:%llu:%llu%n", &kind, &a, &b, &used) == 3; n++) {
        out[n][0] = kind, out[n][1] = a, out[n][2] = b;
        text += used;
    }
    return n;
}

static int xe(struct xe_query *q) {
    uint64_t r[8][3];
    unsigned n = read_regions(r);
    uint32_t size = (uint32_t)(8 + n * sizeof(struct xe_region));
    if (q->query != 1) return EINVAL;
    if (!q->size) { q->size = size; return 0; }
    if (q->size != size) return EINVAL;
    struct xe_regions *out = (void *)(uintptr_t)q->data;
    memset(out, 0, size);
    out->num_mem_regions = n;
    for (unsigned i = 0; i < n; i++)
        out->mem_regions[i] = (struct xe_region){
            .mem_class = (uint16_t)r[i][0], .min_page_size = 65536, .total_size = r[i][1], .used = r[i][2]};
    return 0;
}

static int i915(struct i915_query *q) {
    struct i915_item *item = (void *)(uintptr_t)q->items_ptr;
    uint64_t r[8][3];
    unsigned n = read_regions(r);
    int32_t size = (int32_t)(16 + n * sizeof(struct i915_region));
    if (q->num_items != 1 || item->query_id != 4) { item->length = -EINVAL; return 0; }
    if (!item->length) { item->length = size; return 0; }
    if (item->length < size) { item->length = -EINVAL; return 0; }
    struct i915_regions *out = (void *)(uintptr_t)item->data_ptr;
    memset(out, 0, (size_t)size);
    out->num_regions = n;
    for (unsigned i = 0; i < n; i++)
        out->regions[i] = (struct i915_region){
            .region.memory_class = (uint16_t)r[i][0], .probed_size = r[i][1], .unallocated_size = r[i][2]};
    return 0;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    (void)fd;
    const char *text = getenv("NEMOFIT_FAKE_DRM");
    int code = text && !strncmp(text, "errno ", 6) ? atoi(text + 6) : ENOTTY;
    request &= 0xffffffff;
    if (code != ENOTTY) ;
    else if (request == _IOWR('d', 0x40, struct xe_query)) code = xe(argument);
    else if (request == _IOWR('d', 0x40 + 0x39, struct i915_query)) code = i915(argument);
    if (code) errno = code;
    return code ? -1 : 0;
}
