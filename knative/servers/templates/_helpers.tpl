{{- define "servers.labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/component: servers
app.kubernetes.io/part-of: natterjack-servers
{{- end }}

{{- define "servers.selector" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: natterjack-servers
{{- end }}

{{/* Of a pod. Takes the user that its image's files belong to. */}}
{{- define "servers.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 60
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* Of a container. Takes whether it can do with a read-only root. */}}
{{- define "servers.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ . }}
capabilities:
  drop: [ALL]
{{- end }}

{{/* Takes the root context, a name and a size. */}}
{{- define "servers.claim" -}}
volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .root.Values.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .size }}
{{- end }}

{{/* A Service by which the name alone is the address. Takes the root context, a name and its ports. */}}
{{- define "servers.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "servers.labels" .name | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "servers.selector" .name | nindent 4 }}
  ports:
    {{- range $name, $port := .ports }}
    - { name: {{ $name }}, port: {{ $port }} }
    {{- end }}
{{- end }}
