//go:build tools

// Package tools keeps the program that checks and tests alert rules in go.mod.
package tools

import _ "github.com/prometheus/prometheus/cmd/promtool"
