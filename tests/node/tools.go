//go:build tools

// Package tools keeps the kubelet of the tests' real node in go.mod.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kubelet"
)
