# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets up what everything is built and run with."""
