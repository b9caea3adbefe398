// SPDX-License-Identifier: GPL-2.0
/*
 * Large pages in a guest_memfd, for tests. The kernel's has small ones only, but KVM's code for
 * SEV-SNP is ready for those of 2 MiB.
 *
 * A process asks for a number of blocks of 2 MiB by writing it to the parameter `blocks`. The pages
 * that it allocates for a guest_memfd from then on are those of the blocks, in that order, and KVM is
 * told that they are large, by way of probes:
 *
 *   folio_alloc                                gives out the next page of a block
 *   kvm_arch_gmem_prepare, _make_private       is told the size when a page is to become private
 *   kvm_gmem_get_pfn                           tells the size
 *   kvm_arch_gmem_invalidate, _reclaim         is told that a block is freed with its first page, if
 *                                              the parameter `whole` is set, which it is until the
 *                                              blocks are taken back
 *
 * The file has to be allocated in whole and aligned blocks (fallocate) before the guest uses it. As
 * long as a block is out, nobody else gets its pages: writing 0 takes the blocks back, and fails with
 * EBUSY if one of their pages is still in a file. Reading tells how many pages were given out.
 */

#include <linux/gfp.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#define MOST		8
#define ORDER		9
#define PER_BLOCK	(1UL << ORDER)

/* Protects what follows. Taken in probes, where nothing sleeps. */
static DEFINE_SPINLOCK(lock);
static struct page *blocks[MOST];
static unsigned int count;
static unsigned long given;
static pid_t user;

/* Whether a block becomes the host's at once, as does a large page of a file. */
static bool whole;

/* Serialises those who write the parameter. */
static DEFINE_MUTEX(changing);

/* The next page, with a reference of its own besides ours; its content is the guest's zeroes. */
static struct page *next_page(void)
{
	struct page *page = NULL;

	spin_lock(&lock);
	if (given < count * PER_BLOCK) {
		page = blocks[given / PER_BLOCK] + given % PER_BLOCK;
		given++;
	}
	spin_unlock(&lock);

	if (page) {
		get_page(page);
		folio_mark_uptodate(page_folio(page));
	}
	return page;
}

static bool is_large(unsigned long pfn)
{
	unsigned long first = round_down(pfn, PER_BLOCK);
	bool found = false;
	unsigned int i;

	spin_lock(&lock);
	for (i = 0; i < count; i++)
		found |= page_to_pfn(blocks[i]) == first;
	spin_unlock(&lock);
	return found;
}

/* Only allocations of the file's: nothing else in the process uses exactly these flags. */
static int alloc_begins(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	gfp_t gfp = regs_get_kernel_argument(regs, 0);
	unsigned long order = regs_get_kernel_argument(regs, 1);

	return current->tgid != READ_ONCE(user) || gfp != GFP_HIGHUSER || order != 0;
}
NOKPROBE_SYMBOL(alloc_begins);

static int alloc_ends(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct folio *folio = (struct folio *)regs_return_value(regs);
	struct page *page = folio ? next_page() : NULL;

	if (page) {
		folio_put(folio);
		regs_set_return_value(regs, (unsigned long)page_folio(page));
	}
	return 0;
}
NOKPROBE_SYMBOL(alloc_ends);

static struct kretprobe alloc_probe = {
	.kp.symbol_name = "folio_alloc_noprof",
	.entry_handler = alloc_begins,
	.handler = alloc_ends,
};

static int register_alloc_probe(void)
{
	int ret = register_kretprobe(&alloc_probe);

	/* In a kernel without NUMA it is an inline function, which calls another with the same arguments. */
	if (ret == -ENOENT) {
		alloc_probe.kp.symbol_name = "__folio_alloc_noprof";
		ret = register_kretprobe(&alloc_probe);
	}
	return ret;
}

/* (kvm, slot, gfn, pfn, page, max_order) */
struct results {
	u64 *pfn;
	int *max_order;
};

static int get_pfn_begins(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct results *results = (struct results *)instance->data;

	results->pfn = (u64 *)regs_get_kernel_argument(regs, 3);
	results->max_order = (int *)regs_get_kernel_argument(regs, 5);
	return !results->max_order;
}
NOKPROBE_SYMBOL(get_pfn_begins);

static int get_pfn_ends(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct results *results = (struct results *)instance->data;

	if ((int)regs_return_value(regs) == 0 && is_large(*results->pfn))
		*results->max_order = ORDER;
	return 0;
}
NOKPROBE_SYMBOL(get_pfn_ends);

/* (kvm, gfn, pfn, max_order) */
static int prepare(struct kprobe *probe, struct pt_regs *regs)
{
	if (is_large(regs->dx))
		regs->cx = ORDER;
	return 0;
}
NOKPROBE_SYMBOL(prepare);

/* (kvm, gfn, pfn, nr_pages) */
static int make_private(struct kprobe *probe, struct pt_regs *regs)
{
	if (is_large(regs->dx))
		regs->cx = PER_BLOCK;
	return 0;
}
NOKPROBE_SYMBOL(make_private);

static struct kretprobe get_pfn_probe = {
	.kp.symbol_name = "kvm_gmem_get_pfn",
	.entry_handler = get_pfn_begins,
	.handler = get_pfn_ends,
	.data_size = sizeof(struct results),
};

static bool frees_block(unsigned long pfn)
{
	return READ_ONCE(whole) && IS_ALIGNED(pfn, PER_BLOCK) && is_large(pfn);
}
NOKPROBE_SYMBOL(frees_block);

/* (first pfn, pfn after the last one) */
static int invalidate(struct kprobe *probe, struct pt_regs *regs)
{
	if (frees_block(regs->di))
		regs->si = regs->di + PER_BLOCK;
	return 0;
}
NOKPROBE_SYMBOL(invalidate);

/* (first pfn, nr_pages) */
static int reclaim(struct kprobe *probe, struct pt_regs *regs)
{
	if (frees_block(regs->di))
		regs->si = PER_BLOCK;
	return 0;
}
NOKPROBE_SYMBOL(reclaim);

/* A kernel has one function of each pair. */
static struct kprobe become_probes[2] = {
	{ .symbol_name = "kvm_arch_gmem_prepare", .pre_handler = prepare },
	{ .symbol_name = "kvm_arch_gmem_make_private", .pre_handler = make_private },
};
static struct kprobe *become_probe;

static struct kprobe free_probes[2] = {
	{ .symbol_name = "kvm_arch_gmem_invalidate", .pre_handler = invalidate },
	{ .symbol_name = "kvm_arch_gmem_reclaim", .pre_handler = reclaim },
};
static struct kprobe *free_probe;

static int register_one(struct kprobe probes[2], struct kprobe **registered)
{
	int ret = register_kprobe(&probes[0]);

	*registered = &probes[0];
	if (ret == -ENOENT) {
		ret = register_kprobe(&probes[1]);
		*registered = &probes[1];
	}
	return ret;
}

/* Nobody else can have a reference to a page that is in no file. */
static bool is_back(struct page *block)
{
	unsigned long i;

	for (i = 0; i < PER_BLOCK; i++) {
		if (page_ref_count(block + i) != 1)
			return false;
	}
	return true;
}

static int take_back(void)
{
	unsigned int i, had = count;
	unsigned long n;

	for (i = 0; i < had; i++) {
		if (!is_back(blocks[i]))
			return -EBUSY;
	}

	spin_lock(&lock);
	user = 0;
	count = 0;
	given = 0;
	spin_unlock(&lock);
	WRITE_ONCE(whole, false);

	for (i = 0; i < had; i++) {
		for (n = 0; n < PER_BLOCK; n++)
			put_page(blocks[i] + n);
	}
	return 0;
}

static int give(unsigned int number)
{
	struct page *page;
	unsigned int i;

	if (count)
		return -EBUSY;
	if (number > MOST)
		return -EINVAL;

	for (i = 0; i < number; i++) {
		page = alloc_pages(GFP_KERNEL | __GFP_ZERO, ORDER);
		if (!page)
			break;
		split_page(page, ORDER);
		blocks[i] = page;
	}

	spin_lock(&lock);
	count = i;
	user = current->tgid;
	spin_unlock(&lock);

	if (i < number) {
		take_back();
		return -ENOMEM;
	}
	return 0;
}

static int set_blocks(const char *text, const struct kernel_param *param)
{
	unsigned int number;
	int ret = kstrtouint(text, 0, &number);

	if (ret)
		return ret;

	mutex_lock(&changing);
	ret = number ? give(number) : take_back();
	mutex_unlock(&changing);
	return ret;
}

static int get_blocks(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%lu\n", READ_ONCE(given));
}

static const struct kernel_param_ops blocks_ops = {
	.set = set_blocks,
	.get = get_blocks,
};
module_param_cb(blocks, &blocks_ops, NULL, 0600);
MODULE_PARM_DESC(blocks, "written: blocks for the writing process; read: pages given out");
module_param(whole, bool, 0600);
MODULE_PARM_DESC(whole, "a block is freed with its first page");

static int __init start(void)
{
	int ret;

	ret = register_one(become_probes, &become_probe);
	if (ret)
		return ret;
	ret = register_one(free_probes, &free_probe);
	if (ret)
		goto no_free;
	ret = register_kretprobe(&get_pfn_probe);
	if (ret)
		goto no_get_pfn;
	ret = register_alloc_probe();
	if (ret)
		goto no_alloc;
	return 0;

no_alloc:
	unregister_kretprobe(&get_pfn_probe);
no_get_pfn:
	unregister_kprobe(free_probe);
no_free:
	unregister_kprobe(become_probe);
	return ret;
}

/* Pages that are in use must not get back to the kernel: they may be a guest's. */
static void __exit stop(void)
{
	unregister_kretprobe(&alloc_probe);
	unregister_kretprobe(&get_pfn_probe);
	unregister_kprobe(free_probe);
	unregister_kprobe(become_probe);
	if (take_back())
		pr_err("large_gmem: pages are still in use, and are lost\n");
}

module_init(start);
module_exit(stop);
MODULE_DESCRIPTION("Large pages in a guest_memfd, for tests");
MODULE_LICENSE("GPL");
