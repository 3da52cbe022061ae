{{/*
A pod template of the worker: (dict "root" $ "component" its label "args" what it runs "env" a list of its own variables "grace" seconds or 0).
The same for the CronJob and the audit's: what is said of one is said of the other.
*/}}
{{- define "openai-key-rotator.pod" -}}
{{- $root := .root -}}
{{- with .root.Values -}}
metadata:
  labels: {{- include "openai-key-rotator.podLabels" $ | nindent 4 }}
  annotations: {{- toYaml (merge (dict) .podAnnotations .commonAnnotations (dict "linkerd.io/inject" "disabled")) | nindent 4 }}
spec:
  serviceAccountName: {{ include "openai-key-rotator.fullname" $root | quote }}
  automountServiceAccountToken: true
  restartPolicy: Never
  enableServiceLinks: false
  {{- with $.grace }}
  terminationGracePeriodSeconds: {{ int64 . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    seccompProfile: {type: RuntimeDefault}
  {{- with .image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: openai-key-rotator
      image: {{ include "openai-key-rotator.image" $root }}
      {{- with .image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      args: {{- toYaml $.args | nindent 8 }}
      env: {{- include "openai-key-rotator.env" $ | fromYamlArray | toYaml | nindent 8 }}
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      {{- if or .centralAdminKeys.enabled .caBundle.enabled .extraVolumeMounts }}
      volumeMounts:
        {{- if .centralAdminKeys.enabled }}
        - {name: admin-keys, mountPath: /etc/openai-key-rotator, readOnly: true}
        {{- end }}
        {{- if .caBundle.enabled }}
        - {name: ca, mountPath: /etc/openai-key-rotator/ca, readOnly: true}
        {{- end }}
        {{- with .extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- if or .centralAdminKeys.enabled .caBundle.enabled .extraVolumes }}
  volumes:
    {{- if .centralAdminKeys.enabled }}
    - name: admin-keys
      configMap: {name: {{ include "openai-key-rotator.adminKeys" $root | quote }}}
    {{- end }}
    {{- if .caBundle.enabled }}
    - name: ca
      configMap: {name: {{ default "openai-key-rotator-ca" .caBundle.configMap | quote }}}
    {{- end }}
    {{- with .extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
The variables of a pod, of the same dict: a list. One of extraEnv takes the place of the chart's own, as in a kustomize
patch: Helm 4 applies on the server's side, where a list has no name twice.
*/}}
{{- define "openai-key-rotator.env" -}}
{{- with .root.Values -}}
{{- /* kubectl describe pod tells what the run did */ -}}
{{- $env := prepend $.env (dict "name" "ROTATOR_SUMMARY_FILE" "value" "/dev/termination-log") -}}
{{- with .namespaces -}}
{{- $env = append $env (dict "name" "ROTATOR_NAMESPACE" "value" (join "," .)) -}}
{{- end -}}
{{- /* an audit asks about nothing with the fallback key */ -}}
{{- with .fallbackAdminKey -}}
{{- if and .enabled (not (has "audit" $.args)) -}}
{{- $env = append $env (dict "name" "ROTATOR_FALLBACK_ADMIN_KEY" "value" (printf "%s/%s" .secret .key)) -}}
{{- end -}}
{{- end -}}
{{- if .centralAdminKeys.enabled -}}
{{- $env = append $env (dict "name" "ROTATOR_CENTRAL_ADMIN_KEYS" "value" "/etc/openai-key-rotator/admin-keys.yaml") -}}
{{- end -}}
{{- if .caBundle.enabled -}}
{{- $env = append $env (dict "name" "SSL_CERT_FILE" "value" "/etc/openai-key-rotator/ca/ca.crt") -}}
{{- end -}}
{{- /* an audit is strict or not by its own variable */ -}}
{{- range $option, $value := omit .options (ternary "strict" "" (has "audit" $.args)) -}}
{{- $text := ternary (join "," $value) (toString $value) (kindIs "slice" $value) -}}
{{- $env = append $env (dict "name" (printf "ROTATOR_%s" ($option | upper | replace "-" "_")) "value" $text) -}}
{{- end -}}
{{- range $name, $value := dict "HTTPS_PROXY" .proxy.https "HTTP_PROXY" .proxy.http "NO_PROXY" .proxy.exclude -}}
{{- if $value -}}
{{- $env = append $env (dict "name" $name "value" $value) -}}
{{- end -}}
{{- end -}}
{{- $theirs := list -}}
{{- range .extraEnv -}}
{{- $theirs = append $theirs .name -}}
{{- end -}}
{{- $all := list -}}
{{- range $env -}}
{{- if not (has .name $theirs) -}}
{{- $all = append $all . -}}
{{- end -}}
{{- end -}}
{{- toYaml (concat $all (default (list) .extraEnv)) -}}
{{- end -}}
{{- end }}
