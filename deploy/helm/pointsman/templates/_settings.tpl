{{- /* A value as the environment holds it. YAML's large numbers are floats, which would print as 1e+06. */ -}}
{{- define "pointsman.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* Several dicts as one, as YAML; later ones win. `merge` would take false and 0 for missing. */ -}}
{{- define "pointsman.merged" -}}
{{- $all := dict -}}
{{- range . }}{{ range $name, $value := . }}{{ $_ := set $all $name $value }}{{ end }}{{ end -}}
{{- toYaml $all -}}
{{- end -}}

{{- /* `env` of a container. Takes: root, and three dicts: settings, settingsFromSecrets, own (what the chart sets). */ -}}
{{- define "pointsman.env" -}}
{{- $secrets := .settingsFromSecrets -}}
{{- range $name, $value := .settings -}}
{{- if hasKey $secrets $name -}}
{{- fail (printf "%s is in settings and in settingsFromSecrets: set one of them to null" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := include "pointsman.merged" (list .settings .own) | fromYaml }}
- name: {{ $name }}
  value: {{ include "pointsman.text" $value | quote }}
{{- end }}
{{- range $name, $from := $secrets }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.name }}, key: {{ $from.key | quote }}}}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Megabytes of a quantity of memory; empty if it is written in another unit. */ -}}
{{- define "pointsman.megabytes" -}}
{{- $quantity := toString . -}}
{{- if regexMatch "^[0-9]+Gi$" $quantity -}}{{ mul 1024 (trimSuffix "Gi" $quantity | int) }}
{{- else if regexMatch "^[0-9]+Mi$" $quantity -}}{{ trimSuffix "Mi" $quantity | int }}
{{- end -}}
{{- end -}}

{{- /* Whether a setting is true. Takes a list: the settings, the variable. */ -}}
{{- define "pointsman.on" -}}
{{- if eq (toString (get (index . 0) (index . 1))) "true" -}}true{{- end -}}
{{- end -}}

{{- /* Stops with a message where the server would refuse to start. Takes: root, component, settings, secrets (of it). */ -}}
{{- define "pointsman.check" -}}
{{- $values := .root.Values -}}
{{- $settings := .settings -}}
{{- $secrets := .secrets -}}
{{- $elsewhere := or $values.extraEnv $values.extraEnvFrom -}}
{{- range $name := list "DATABASE_URL" "REDIS_URL" "KAFKA_BOOTSTRAP_SERVERS" -}}
{{- if not (or (hasKey $settings $name) (hasKey $secrets $name) $elsewhere) -}}
{{- fail (printf "%s is not set: name its Secret in settingsFromSecrets" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (or $values.tls.enabled (include "pointsman.on" (list $settings "POINTSMAN_ALLOW_PLAINTEXT"))) -}}
{{- fail "TLS is off: set tls.enabled, or allow it by settings.POINTSMAN_ALLOW_PLAINTEXT=true, as behind a mesh" -}}
{{- end -}}
{{- if and $values.tls.clientCa.enabled (not $values.tls.enabled) -}}
{{- fail "tls.clientCa.enabled needs tls.enabled" -}}
{{- end -}}
{{- $authenticates := or (include "pointsman.on" (list $settings "POINTSMAN_API_KEYS")) (hasKey $settings "POINTSMAN_JWT_ISSUER") $values.tls.clientCa.enabled $elsewhere -}}
{{- if not (or $authenticates (include "pointsman.on" (list $settings "POINTSMAN_ALLOW_ANONYMOUS"))) -}}
{{- fail "authentication is off: set settings.POINTSMAN_API_KEYS, settings.POINTSMAN_JWT_ISSUER or tls.clientCa.enabled, or allow it by settings.POINTSMAN_ALLOW_ANONYMOUS=true" -}}
{{- end -}}
{{- if and $values.policy $values.existingPolicyConfigMap -}}
{{- fail "policy and existingPolicyConfigMap exclude each other" -}}
{{- end -}}
{{- if and (or $values.policy $values.existingPolicyConfigMap) (not $authenticates) -}}
{{- fail "a policy without authentication has no effect" -}}
{{- end -}}
{{- if and (eq (get $values .component).probes "grpc") $values.tls.enabled -}}
{{- fail (printf "%s.probes is grpc, and the kubelet's gRPC probes know no TLS: choose auto or http" .component) -}}
{{- end -}}
{{- with $values.api.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail "api.autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Where pods listen: the ports are those of probes, Services and NetworkPolicy. Takes: root, ports. */ -}}
{{- define "pointsman.addresses" -}}
{{- $host := .root.Values.listenHost -}}
POINTSMAN_LISTEN: {{ printf "%s:50051" $host | quote }}
POINTSMAN_HTTP_LISTEN: {{ printf "%s:9464" $host | quote }}
{{- if .ports.xds }}
POINTSMAN_XDS_LISTEN: {{ printf "%s:%v" $host .ports.xds | quote }}
{{- end }}
{{- end -}}
