# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a command in a virtual machine that is a SEV host."""
