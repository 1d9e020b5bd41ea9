"""Tests of whole processes: the gateway as it is installed and started."""
