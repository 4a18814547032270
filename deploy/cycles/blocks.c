/* A plugin of QEMU's user emulation that tells how often a 64-bit ARM program executed each of its basic blocks: into the file of
 * the plugin's argument `out=FILE` go lines of a count, the name of the function (`?` where it has none), and the block's opcodes. The
 * declarations are those of QEMU's plugin interface, version 1 (qemu-plugin.h), which Debian 12 has no package of. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

int qemu_plugin_version = 1;

/* QEMU's QEMU_PLUGIN_INLINE_ADD_U64. */
enum { ADD_U64 = 0, BUCKETS = 1 << 16 };

struct block {
    uint64_t address, count;
    size_t length;
    uint32_t *opcodes;
    char *function;
    struct block *next;
};

static struct block *buckets[BUCKETS];
static const char *out;

static void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory) {
        fputs("blocks: no memory\n", stderr);
        exit(71);
    }
    return memory;
}

/* The block of this address and length, which QEMU may translate more than once. */
static struct block *find(const struct qemu_plugin_tb *translated)
{
    uint64_t address = qemu_plugin_tb_vaddr(translated);
    size_t length = qemu_plugin_tb_n_insns(translated);
    struct block **bucket = &buckets[(address >> 2) % BUCKETS], *block;
    for (block = *bucket; block; block = block->next)
        if (block->address == address && block->length == length)
            return block;
    block = allocate(sizeof *block);
    block->address = address;
    block->length = length;
    block->opcodes = allocate(length * sizeof *block->opcodes);
    for (size_t i = 0; i < length; i++)
        memcpy(&block->opcodes[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(translated, i)), sizeof *block->opcodes);
    const char *function = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(translated, 0));
    block->function = strdup(function && *function ? function : "?");
    block->next = *bucket;
    *bucket = block;
    return block;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &find(block)->count, 1);
}

static void ended(plugin_id id, void *unused)
{
    (void)id;
    (void)unused;
    FILE *file = fopen(out, "w");
    if (!file) {
        perror(out);
        exit(73);
    }
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct block *block = buckets[i]; block; block = block->next) {
            if (!block->count)
                continue;
            fprintf(file, "%" PRIu64 " %s ", block->count, block->function);
            for (size_t j = 0; j < block->length; j++)
                fprintf(file, "%08" PRIx32, block->opcodes[j]);
            fputc('\n', file);
        }
    fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = argv[i] + 4;
    if (!out) {
        fputs("blocks: out=FILE is missing\n", stderr);
        return -1;
    }
    out = strdup(out);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
