// SPDX-License-Identifier: GPL-2.0
/*
 * Does what the debug kernel has to notice, one mistake for each of its facilities, in the order
 * in which they can follow each other: after most reports lockdep is not trusted any more.
 */

#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);
static DEFINE_SPINLOCK(spin);
static int __rcu *protected;
static volatile int table[4];
static volatile int index = 4;
static volatile int width = 32;

static void use_after_free(void)
{
	volatile char *object = kmalloc(32, GFP_KERNEL);

	kfree((void *)object);
	if (object)
		object[0];
}

static void vmalloc_out_of_bounds(void)
{
	volatile char *object = vmalloc(PAGE_SIZE - 8);

	if (object)
		object[PAGE_SIZE - 8];
	vfree((void *)object);
}

static void lose(void)
{
	int i;

	/* The last one's address may still be in a register or on a stack. */
	for (i = 0; i < 8; i++)
		kmalloc(4000, GFP_KERNEL);
}

static void lock_in_both_orders(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static int __init provoke(void)
{
	LIST_HEAD(head);
	LIST_HEAD(entry);

	(void)rcu_dereference(protected);
	lock_in_both_orders();

	use_after_free();
	vmalloc_out_of_bounds();
	lose();

	table[index] = 1;
	table[0] = 1 << width;

	/* Twice the same entry. */
	list_add(&entry, &head);
	list_add(&entry, &head);

	spin_lock(&spin);
	might_sleep();
	spin_unlock(&spin);

	(void)smp_processor_id();
	return 0;
}

static void __exit stop(void)
{
}

module_init(provoke);
module_exit(stop);
MODULE_DESCRIPTION("Mistakes for a debug kernel to notice");
MODULE_LICENSE("GPL");
