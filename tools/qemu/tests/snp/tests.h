/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_H
#define TESTS_H

void host_tests(void);
void guest_tests(void);
void vmpl_tests(void);
void query_tests(void);
void unpaged_tests(void);
void interrupt_tests(void);
void tsc_tests(void);
void use_tests(void);

#endif
