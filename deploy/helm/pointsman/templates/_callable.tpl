{{- /*
The Deployment of pods that answer calls. Takes: root, component, values (of the component), roles (empty: all but xds),
ports (of containers, by name), probed (the name of the port that gRPC probes ask).
*/ -}}
{{- define "pointsman.callable" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $secrets := include "pointsman.merged" (list $root.Values.settingsFromSecrets $values.settingsFromSecrets) | fromYaml -}}
{{- $settings := include "pointsman.merged" (list $root.Values.settings $values.settings) | fromYaml -}}
{{- include "pointsman.check" (dict "root" $root "component" .component "settings" $settings "secrets" $secrets) -}}
{{- $probes := $values.probes -}}
{{- if eq $probes "auto" }}{{ $probes = ternary "http" "grpc" $root.Values.tls.enabled }}{{ end -}}
{{- $policy := $root.Values.existingPolicyConfigMap -}}
{{- if $root.Values.policy }}{{ $policy = printf "%s-policy" (include "pointsman.fullname" $root) }}{{ end -}}
{{- $own := dict -}}
{{- if .roles }}{{ $_ := set $own "POINTSMAN_ROLES" .roles }}{{ end -}}
{{- if $root.Values.tls.enabled -}}
{{- $_ := set $own "POINTSMAN_TLS_CERT_FILE" "/etc/pointsman/tls/tls.crt" -}}
{{- $_ := set $own "POINTSMAN_TLS_KEY_FILE" "/etc/pointsman/tls/tls.key" -}}
{{- if $root.Values.tls.clientCa.enabled }}{{ $_ := set $own "POINTSMAN_TLS_CLIENT_CA_FILE" (ternary "/etc/pointsman/client-ca/ca.crt" "/etc/pointsman/tls/ca.crt" (ne $root.Values.tls.clientCa.existingSecret "")) }}{{ end -}}
{{- end -}}
{{- if $policy }}{{ $_ := set $own "POINTSMAN_POLICY_FILE" "/etc/pointsman/policy/policy.toml" }}{{ end -}}
{{- with include "pointsman.megabytes" ($values.resources.limits | default dict).memory -}}
{{- if not (hasKey $settings "POINTSMAN_MAX_HEAP_MEGABYTES") -}}
{{- $_ := set $own "POINTSMAN_MAX_HEAP_MEGABYTES" (max 64 (div (mul 3 (int .)) (mul 4 (max 1 (get $settings "POINTSMAN_WORKERS" | default 1 | int))))) -}}
{{- end -}}
{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "pointsman.fullname" $root }}-{{ .component }}
  labels:
    {{- include "pointsman.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if not ($values.autoscaling | default dict).enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "pointsman.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      {{- include "pointsman.podMetadata" . | nindent 6 }}
    spec:
      {{- include "pointsman.pod" $root | nindent 6 }}
      serviceAccountName: {{ include "pointsman.serviceAccountName" $root }}
      # Longer than POINTSMAN_LAME_DUCK_SECONDS and POINTSMAN_DRAIN_SECONDS together. No preStop hook: on SIGTERM the
      # server says that it is not ready, and goes on answering until the endpoints have changed.
      terminationGracePeriodSeconds: {{ include "pointsman.gracePeriod" $settings }}
      {{- include "pointsman.placement" . | nindent 6 }}
      containers:
        - name: server
          args: ["serve"]
          {{- include "pointsman.container" $root | nindent 10 }}
          ports:
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}}
            {{- end }}
          env:
            {{- include "pointsman.env" (dict "root" $root "own" (merge $own (include "pointsman.addresses" . | fromYaml)) "settings" $settings "settingsFromSecrets" $secrets) | trim | nindent 12 }}
          {{- include "pointsman.probes" (dict "kind" $probes "port" (get .ports .probed)) | nindent 10 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            {{- include "pointsman.volumeMounts" $root | nindent 12 }}
            {{- if $root.Values.tls.enabled }}
            - {name: tls, mountPath: /etc/pointsman/tls, readOnly: true}
            {{- if and $root.Values.tls.clientCa.enabled $root.Values.tls.clientCa.existingSecret }}
            - {name: client-ca, mountPath: /etc/pointsman/client-ca, readOnly: true}
            {{- end }}
            {{- end }}
            {{- if $policy }}
            - {name: policy, mountPath: /etc/pointsman/policy, readOnly: true}
            {{- end }}
      volumes:
        {{- include "pointsman.volumes" $root | nindent 8 }}
        {{- if $root.Values.tls.enabled }}
        - name: tls
          secret: {secretName: {{ $root.Values.tls.existingSecret }}, defaultMode: 0440}
        {{- if and $root.Values.tls.clientCa.enabled $root.Values.tls.clientCa.existingSecret }}
        - name: client-ca
          secret:
            secretName: {{ $root.Values.tls.clientCa.existingSecret }}
            defaultMode: 0440
            # The authority alone: its private key may lie in the same Secret.
            items: [{key: ca.crt, path: ca.crt}]
        {{- end }}
        {{- end }}
        {{- if $policy }}
        - name: policy
          configMap: {name: {{ $policy }}}
        {{- end }}
{{- end -}}
