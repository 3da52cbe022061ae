//go:build tools

// Package tools keeps Helm, which renders and installs the chart, in go.mod.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
