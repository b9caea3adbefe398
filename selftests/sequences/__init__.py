# SPDX-License-Identifier: GPL-2.0-or-later
"""Differential runs: random sequences of ioctls on two kernel modules."""
