{{/* A function's name as Kubernetes wants names: without underscores. */}}
{{- define "natterjack.name" -}}
{{ . | replace "_" "-" }}
{{- end }}

{{/* A row of `functions` over what its kind says, as JSON. Takes the root context and the function's name. */}}
{{- define "natterjack.function" -}}
{{- $row := get .root.Values.functions .function -}}
{{- $kind := get .root.Values.kinds $row.kind -}}
{{ mergeOverwrite (deepCopy $kind) (deepCopy $row) | toJson }}
{{- end }}

{{/* Labels of everything; `component` is the file of knative/rendered that it stands in. Takes the root context and the part: a function's name, edge, base … */}}
{{- define "natterjack.labels" -}}
app.kubernetes.io/name: {{ .part | replace "_" "-" }}
app.kubernetes.io/component: {{ .part }}
app.kubernetes.io/part-of: natterjack
app.kubernetes.io/version: {{ .root.Values.images.tag | quote }}
{{- end }}

{{/* Takes the root context, what it runs, and perhaps an image of its own. */}}
{{- define "natterjack.image" -}}
{{ .image | default (printf "%s/%s:%s" .root.Values.images.repository .process .root.Values.images.tag) }}
{{- end }}

{{/* As little as a process can do with. No user is named: the image has one, and some clusters choose their own. */}}
{{- define "natterjack.security" -}}
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Addresses that come from Secrets: one variable for each server with a password. Takes a list of servers and secrets. */}}
{{- define "natterjack.environment" -}}
{{- range .servers }}
{{- if has . (list "nats" "redis" "db") }}
- name: IM_{{ upper . }}_URL_FILE
  value: /secrets/{{ . }}_url
{{- end }}
{{- if eq . "s3" }}
- name: IM_S3_ACCESS_KEY_FILE
  value: /secrets/s3_access_key
- name: IM_S3_SECRET_KEY_FILE
  value: /secrets/s3_secret_key
{{- end }}
{{- end }}
{{- if has "jwt" .secrets }}
- name: IM_JWT_SECRET_FILE
  value: /secrets/jwt_secret
{{- end }}
{{- end }}

{{/* Files of the Secrets. Takes the root context, the role, its servers, and further secrets (jwt). */}}
{{- define "natterjack.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
- name: secrets
  projected:
    defaultMode: 292 # 0444: any user, as only the process is in there
    sources:
      - secret:
          name: {{ required (printf "secrets.%s: which Secret is that?" .role) (get .root.Values.secrets .role) }}
          items:
            {{- range .servers }}
            {{- if has . (list "nats" "redis" "db") }}
            - { key: {{ . }}_url, path: {{ . }}_url }
            {{- end }}
            {{- end }}
      {{- range has "s3" .servers | ternary (append .secrets "s3") .secrets }}
      - secret:
          name: {{ get $.root.Values.secrets . }}
      {{- end }}
{{- end }}

{{- define "natterjack.mounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: secrets, mountPath: /secrets, readOnly: true }
{{- end }}

{{/* Settings that are no secrets; edge and functions have them from the ConfigMap, the migrations before it exists. */}}
{{- define "natterjack.settings" -}}
IM_LOG_URL: {{ .Values.log.url | quote }}
IM_LOG_PARTITIONS: {{ .Values.log.partitions | quote }}
IM_S3_ENDPOINT: {{ .Values.s3.endpoint | quote }}
IM_S3_BUCKET: {{ .Values.s3.bucket | quote }}
IM_CORS_ORIGINS: {{ .Values.settings.corsOrigins | quote }}
IM_REGISTRATION: {{ .Values.settings.registration | quote }}
IM_STRANGERS: {{ .Values.settings.strangers | quote }}
IM_RATE_LIMITS: {{ .Values.settings.rateLimits | quote }}
IM_LOG_LEVEL: {{ .Values.settings.logLevel | quote }}
{{- if .Values.settings.otlpEndpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ .Values.settings.otlpEndpoint | quote }}
IM_TRACE_SAMPLE: {{ .Values.settings.traceSample | quote }}
{{- end }}
{{- range $name, $value := .Values.settings.environment }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* A change of the settings is a change of the pods. */}}
{{- define "natterjack.checksum" -}}
natterjack/settings: {{ include "natterjack.settings" . | sha256sum | trunc 16 | quote }}
{{- end }}

{{- define "natterjack.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What every pod of a Deployment says about itself. */}}
{{- define "natterjack.pod" -}}
serviceAccountName: natterjack
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
{{- with include "natterjack.pullSecrets" . | trim }}
{{ . }}
{{- end }}
{{- end }}

{{- define "natterjack.probes" -}}
startupProbe:
  httpGet: { path: /healthz, port: {{ . }} }
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: { path: /readyz, port: {{ . }} }
  periodSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /healthz, port: {{ . }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* Pods of a part that are to stand on different machines and zones. Takes the labels that select them. */}}
{{- define "natterjack.spread" -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        app.kubernetes.io/name: {{ $ }}
        app.kubernetes.io/part-of: natterjack
  {{- end }}
{{- end }}

{{/* Egress to DNS and the servers of a list. Takes the root context and the list. */}}
{{- define "natterjack.egress" -}}
- ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
{{- $servers := .servers }}
{{- if .root.Values.settings.otlpEndpoint }}
{{- $servers = append $servers "otlp" }}
{{- end }}
{{- range $servers }}
{{- $server := get $.root.Values.networkPolicies.servers . }}
- ports:
    {{- range $server.ports }}
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
  {{- with $server.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
