{{- define "pointsman.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "pointsman.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: ["ALL"]}
{{- end -}}

{{- /* What all containers have. Takes the root. */ -}}
{{- define "pointsman.container" -}}
image: {{ include "pointsman.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "pointsman.containerSecurityContext" . | nindent 2 }}
{{- end -}}

{{- define "pointsman.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range .Values.secretFiles }}
- {name: file-{{ .name }}, mountPath: /etc/pointsman/files/{{ .name }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pointsman.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- range .Values.secretFiles }}
- name: file-{{ .name }}
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What all pods have, above their containers. Takes the root. */ -}}
{{- define "pointsman.pod" -}}
# The server does not call the Kubernetes API.
automountServiceAccountToken: false
# Otherwise Kubernetes sets variables such as POINTSMAN_PORT for each Service, beside the settings.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "pointsman.podSecurityContext" . | nindent 2 }}
{{- end -}}

{{- /* Where the pods of a Deployment run. Takes: root, component, values (of the component). */ -}}
{{- define "pointsman.placement" -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    # The pods of one version are spread, without those that they replace.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "pointsman.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
{{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* Labels and annotations of the pods of a Deployment. Takes: root, component, values (of the component). */ -}}
{{- define "pointsman.podMetadata" -}}
labels:
  {{- include "pointsman.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or (not .root.Values.serviceMonitor.enabled) .values.podAnnotations }}
annotations:
  {{- if not .root.Values.serviceMonitor.enabled }}
  prometheus.io/scrape: "true"
  prometheus.io/port: "9464"
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Longer than the lame-duck time and the drain together. Takes the settings of the pods. */ -}}
{{- define "pointsman.gracePeriod" -}}
{{- $lameDuck := get . "POINTSMAN_LAME_DUCK_SECONDS" | default 0 | float64 -}}
{{- $drain := ternary (get . "POINTSMAN_DRAIN_SECONDS") 10 (hasKey . "POINTSMAN_DRAIN_SECONDS") | float64 -}}
{{- ceil (addf $lameDuck $drain 20.0) | int -}}
{{- end -}}

{{- /* The three probes. Takes: kind (grpc or http), port (of gRPC). */ -}}
{{- define "pointsman.probes" -}}
{{- $live := dict "httpGet" (dict "port" "http" "path" "/health/live") -}}
{{- $ready := dict "httpGet" (dict "port" "http" "path" "/health/ready") -}}
{{- if eq .kind "grpc" -}}
{{- $live = dict "grpc" (dict "port" .port "service" "liveness") -}}
{{- $ready = dict "grpc" (dict "port" .port "service" "readiness") -}}
{{- end -}}
# Two minutes to start: long enough for the migration of the first roll-out.
startupProbe:
  {{- toYaml $live | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
# Alive, not ready: a server whose PostgreSQL is down still answers from its caches: it must not be replaced.
livenessProbe:
  {{- toYaml $live | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  {{- toYaml $ready | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{- /* The spec of the pod that migrates. Takes: root, account, settings, secrets. */ -}}
{{- define "pointsman.migratePod" -}}
{{- include "pointsman.pod" .root }}
serviceAccountName: {{ .account }}
restartPolicy: OnFailure
containers:
  - name: migrate
    args: ["migrate"]
    {{- include "pointsman.container" .root | nindent 4 }}
    env:
      {{- include "pointsman.env" (dict "root" .root "own" dict "settings" .settings "settingsFromSecrets" .secrets) | trim | nindent 6 }}
    resources:
      {{- toYaml .root.Values.migrate.resources | nindent 6 }}
    volumeMounts:
      {{- include "pointsman.volumeMounts" .root | nindent 6 }}
volumes:
  {{- include "pointsman.volumes" .root | nindent 2 }}
{{- end -}}

{{- /* Takes: root, component, values (of the component). */ -}}
{{- define "pointsman.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "pointsman.fullname" .root }}-{{ .component }}
  labels:
    {{- include "pointsman.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready, as while PostgreSQL is down, does not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "pointsman.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
{{- end -}}
