"""Grafana's dashboards drawn as pictures, from a Prometheus that scrapes the local stack."""
