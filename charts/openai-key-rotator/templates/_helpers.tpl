{{/* Names follow the release, as kustomize's follow a namePrefix. The longest suffix is of a CronJob, whose name has 52 letters at most. */}}
{{- define "openai-key-rotator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- end }}

{{/* labels: (dict "root" $ "component" what the object is part of) */}}
{{- define "openai-key-rotator.labels" -}}
{{- with .root -}}
{{- $names := dict "app.kubernetes.io/name" "openai-key-rotator" "app.kubernetes.io/part-of" "openai-key-rotator" -}}
{{- $release := dict "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $chart := dict "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- toYaml (merge (dict) .Values.commonLabels $names $release $chart (dict "app.kubernetes.io/component" (default "worker" $.component))) -}}
{{- end }}
{{- end }}

{{/* Of a pod: (dict "root" $ "component" …) */}}
{{- define "openai-key-rotator.podLabels" -}}
{{- /* an injected mesh proxy keeps the Job from ending, and cuts the way to OpenAI at the start */ -}}
{{- $mesh := dict "sidecar.istio.io/inject" "false" -}}
{{- /* the NetworkPolicy selects pods by it */ -}}
{{- $worker := dict "openai-key-rotator.io/worker" "true" -}}
{{- toYaml (merge (dict) $worker .root.Values.podLabels $mesh (include "openai-key-rotator.labels" . | fromYaml)) -}}
{{- end }}

{{/*
metadata: (dict "root" $ "name" suffix "namespace" its own, none for the cluster's "component" what it is part of
"labels" and "annotations" more of them)
*/}}
{{- define "openai-key-rotator.metadata" -}}
{{- $labels := merge (dict) (default (dict) .labels) (include "openai-key-rotator.labels" . | fromYaml) -}}
{{- $annotations := merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations -}}
name: {{ printf "%s%s" (include "openai-key-rotator.fullname" .root) .name | quote }}
{{- with .namespace }}
namespace: {{ . | quote }}
{{- end }}
labels: {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "openai-key-rotator.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- with .Values.image -}}
{{- if and .digest .tag }}{{ .repository }}:{{ .tag }}@{{ .digest }}
{{- else if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ $tag }}
{{- end }}
{{- end }}
{{- end }}

{{- define "openai-key-rotator.subjects" -}}
- {kind: ServiceAccount, name: {{ include "openai-key-rotator.fullname" . | quote }}, namespace: {{ .Release.Namespace | quote }}}
{{- end }}

{{/* The ConfigMap of admin-keys.yaml. */}}
{{- define "openai-key-rotator.adminKeys" -}}
{{- default (printf "%s-admin-keys" (include "openai-key-rotator.fullname" .)) .Values.centralAdminKeys.configMap -}}
{{- end }}

{{/* (dict "root" $ "value" what asks for it "version" of Kubernetes "why" after a comma) */}}
{{- define "openai-key-rotator.needs" -}}
{{- $here := .root.Capabilities.KubeVersion.Version }}
{{- if semverCompare (printf "<%s.0-0" .version) $here }}
{{- fail (printf "%s needs Kubernetes %s or newer, for %s; this is %s" .value .version .why $here) }}
{{- end }}
{{- end }}
