//go:build tools

// Package tools keeps kube-score, which judges what is rendered, in go.mod.
package tools

import _ "github.com/zegl/kube-score/cmd/kube-score"
