{{/* The name of every object: the release's, which names Softstep. Those of learners have it too, if they have pods of their own. */}}
{{- define "softstep.name" -}}
{{- if contains "softstep" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-softstep" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- if eq (default "" .role) "learner" }}-learner{{ end -}}
{{- end -}}

{{/* The roles that have pods of the chart's: "all" has one Deployment, or "worker" and "learner" have one each; none with KServe. */}}
{{- define "softstep.roles" -}}
{{- if .Values.kserve.models }}[]{{ else if and (include "softstep.shared" .) .Values.learners.replicas }}["worker", "learner"]{{ else }}["all"]{{ end -}}
{{- end -}}

{{/* The labels that select the pods of this release; they never change. */}}
{{- define "softstep.selector" -}}
app.kubernetes.io/name: softstep{{ if eq (default "" .role) "learner" }}-learner{{ end }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Not empty if pods learn from a log that they share. */}}
{{- define "softstep.shared" -}}
{{- if and .Values.learning .Values.log.secret }}yes{{ end -}}
{{- end -}}

{{/* Not empty if one pod has its log in a volume of its own. */}}
{{- define "softstep.single" -}}
{{- if and .Values.learning (not .Values.log.secret) }}yes{{ end -}}
{{- end -}}

{{/* The variables of a log in PostgreSQL. */}}
{{- define "softstep.log" -}}
- name: SOFTSTEP_LOG_COPIES
  value: {{ .Values.log.copies | quote }}
- name: SOFTSTEP_LOG
  valueFrom:
    secretKeyRef:
      name: {{ .Values.log.secret }}
      key: {{ .Values.log.key }}
{{- end -}}

{{/* The labels of every object. */}}
{{- define "softstep.labels" -}}
{{ include "softstep.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}
