{{- define "llamamodel-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" }}
{{- end }}

{{/* Room for a suffix: names of Services have at most 63 characters. */}}
{{- define "llamamodel-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else }}
{{- $name := include "llamamodel-operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "llamamodel-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "llamamodel-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- with omit .Values.commonLabels "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/part-of" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of an object, under its metadata: of the root and the object's own, which win. Nothing where there are none. */}}
{{- define "llamamodel-operator.annotations" -}}
{{- with mergeOverwrite (dict) ((index . 0).Values.commonAnnotations | default dict) (index . 1 | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* Immutable in the Deployment. The component tells its pods from those of later parts of the chart. */}}
{{- define "llamamodel-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "llamamodel-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "llamamodel-operator.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ include "llamamodel-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* Those of the gateway's objects. */}}
{{- define "llamamodel-operator.gatewayLabels" -}}
{{- mergeOverwrite (include "llamamodel-operator.labels" . | fromYaml) (include "llamamodel-operator.gatewaySelectorLabels" . | fromYaml) | toYaml }}
{{- end }}

{{- define "llamamodel-operator.gatewayName" -}}
{{- include "llamamodel-operator.fullname" . }}-gateway
{{- end }}

{{/* Of a list of constraints and the labels of the pods that those without a selector count. */}}
{{- define "llamamodel-operator.spread" -}}
{{- $selector := index . 1 }}
{{- range index . 0 }}
- {{- (hasKey . "labelSelector" | ternary . (set (deepCopy .) "labelSelector" (dict "matchLabels" $selector))) | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{- define "llamamodel-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.name }}
{{- .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}
{{- include "llamamodel-operator.fullname" . }}
{{- else }}
{{- fail "serviceAccount.name is needed where serviceAccount.create is false: the namespace's default account is not for the operator's rights" }}
{{- end }}
{{- end }}

{{- define "llamamodel-operator.gatewayServiceAccountName" -}}
{{- $account := .Values.gateway.serviceAccount }}
{{- if $account.name }}
{{- $account.name }}
{{- else if $account.create }}
{{- include "llamamodel-operator.gatewayName" . }}
{{- else }}
{{- fail "gateway.serviceAccount.name is needed where gateway.serviceAccount.create is false: the namespace's default account is not for the gateway's rights" }}
{{- end }}
{{- end }}

{{- define "llamamodel-operator.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* off, self-signed or cert-manager. YAML 1.1 reads a bare `off` as false. With Roles alone the operator could not publish
a certificate of its own. */}}
{{- define "llamamodel-operator.webhook" -}}
{{- $mode := toString .Values.webhook.mode -}}
{{- if or (has $mode (list "off" "false")) (and .Values.watchNamespaces (eq $mode "self-signed")) -}}
off
{{- else -}}
{{- $mode -}}
{{- end -}}
{{- end }}

{{/* Of the webhook's Service, Secret and ValidatingWebhookConfiguration. */}}
{{- define "llamamodel-operator.webhookName" -}}
{{- include "llamamodel-operator.fullname" . }}-webhook
{{- end }}

{{/* The operator's settings. Those that are not here and make sense in a pod are for extraEnv. */}}
{{- define "llamamodel-operator.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- with .Values.watchNamespaces }}
- name: LLAMAMODEL_OPERATOR_WATCH_NAMESPACES
  value: {{ toJson . | quote }}
{{- end }}
- name: LLAMAMODEL_OPERATOR_LEADER_ELECTION
  value: "true"
- name: LLAMAMODEL_OPERATOR_LEASE_NAME
  value: {{ include "llamamodel-operator.fullname" . }}
- name: LLAMAMODEL_OPERATOR_HTTP_PORT
  value: {{ .Values.httpPort | quote }}
- name: LLAMAMODEL_OPERATOR_WORKERS
  value: {{ .Values.workers | quote }}
- name: LLAMAMODEL_OPERATOR_RESYNC_INTERVAL_SEC
  value: {{ .Values.resyncIntervalSec | quote }}
- name: LLAMAMODEL_OPERATOR_WEBHOOK
  value: {{ include "llamamodel-operator.webhook" . | quote }}
- name: LLAMAMODEL_OPERATOR_WEBHOOK_NAME
  value: {{ include "llamamodel-operator.webhookName" . }}
- name: LLAMAMODEL_OPERATOR_WEBHOOK_PORT
  value: {{ .Values.webhook.port | quote }}
- name: LLAMAMODEL_OPERATOR_WEBHOOK_CERTIFICATE_LIFE_SEC
  value: {{ .Values.webhook.certificateLifeSec | int | quote }}
- name: LLAMAMODEL_OPERATOR_LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: LLAMAMODEL_OPERATOR_LOG_FORMAT
  value: {{ .Values.logFormat }}
- name: LLAMAMODEL_OPERATOR_INSPECTION
  value: {{ .Values.inspection.enabled | quote }}
- name: LLAMAMODEL_OPERATOR_INSPECTION_TIMEOUT_SEC
  value: {{ .Values.inspection.timeoutSec | quote }}
- name: LLAMAMODEL_OPERATOR_OPERATOR_IMAGE
  value: {{ include "llamamodel-operator.image" . | quote }}
- name: LLAMAMODEL_OPERATOR_NODE_AFFINITY
  value: {{ .Values.nodeAffinity | quote }}
- name: LLAMAMODEL_OPERATOR_GATEWAY
  value: {{ .Values.gateway.enabled | quote }}
{{- with .Values.gateway.bareNamespaces }}
- name: LLAMAMODEL_OPERATOR_GATEWAY_BARE_NAMESPACES
  value: {{ toJson . | quote }}
{{- end }}
{{- if .Values.podKeys.secretName }}
- name: LLAMAMODEL_OPERATOR_POD_KEYS_DIR
  value: /run/llamamodel/pod-keys
{{- end }}
{{- with .Values.gpuOverhead }}
- name: LLAMAMODEL_OPERATOR_GPU_OVERHEAD
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.engineImages.cpu }}
- name: LLAMAMODEL_OPERATOR_IMAGE_CPU
  value: {{ quote . }}
{{- end }}
{{- with .Values.engineImages.gpu }}
- name: LLAMAMODEL_OPERATOR_IMAGE_GPU
  value: {{ quote . }}
{{- end }}
{{- with .Values.engineImages.byResource }}
- name: LLAMAMODEL_OPERATOR_IMAGE_BY_RESOURCE
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.modelDefaults }}
- name: LLAMAMODEL_OPERATOR_MODEL_DEFAULTS
  value: {{ toJson . | quote }}
{{- end }}
- name: LLAMAMODEL_OPERATOR_ARGUMENT_POLICY
  value: {{ .Values.argumentPolicy }}
{{- with .Values.allowedFlags }}
- name: LLAMAMODEL_OPERATOR_ALLOWED_FLAGS
  value: {{ toJson . | quote }}
{{- end }}
{{- end }}

{{/* What the operator may do where it serves LlamaModels: exactly the requests that it makes. */}}
{{- define "llamamodel-operator.rules" -}}
- apiGroups: [llamamodel.dev]
  resources: [llamamodels]
  verbs: [get, list, watch]
- apiGroups: [llamamodel.dev]
  resources: [llamamodels/status]
  verbs: [patch]
# Applying an object that does not exist yet needs create and patch.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# While a spec is held back, what runs can still be scaled and suspended.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
# ConfigMaps: those with chat templates, grammars and scales that the operator makes, and those that LlamaModels take
# texts from.
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [list, watch]
# The Jobs that inspect the files of models, and what they found, which is in the logs of their pods. Logs of running
# llama-servers are read once, for the sizes of their buffers; those of llama-servers that ended once for each end, for
# the cause; events of a pod whose volumes or network are not there after 10 seconds.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* Where operator and gateway go: names, the API server, models. Of the values and the labels of models' pods. */}}
{{- define "llamamodel-operator.egress" -}}
{{- $policy := index . 0 }}
- ports:
    {{- range $policy.dnsPorts }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
- ports:
    {{- range $policy.apiServer.ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with $policy.apiServer.cidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  {{- end }}
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          {{- toYaml (index . 1) | nindent 10 }}
  ports:
    - port: 8080
      protocol: TCP
{{- end }}
