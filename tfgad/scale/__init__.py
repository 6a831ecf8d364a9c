"""Batch scoring with Apache Beam."""
