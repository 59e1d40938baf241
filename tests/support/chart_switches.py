"""Values for each switch of the chart: what the snapshots show, and what a real API server takes."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["SWITCHES", "everything"]

_VOLUME = "{name: ca, configMap: {name: corporate-ca}}"
_MOUNT = "{name: ca, mountPath: /etc/ssl/corporate, readOnly: true}"
_TOLERATION = "{key: dedicated, operator: Exists, effect: NoSchedule}"
_ZONES = "{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}"
_AFFINITY = """{nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
            {matchExpressions: [{key: kubernetes.io/arch, operator: In, values: [amd64]}]}]}}}"""
_DIGEST = "sha256:" + "0123456789abcdef" * 4

SWITCHES = {
    "watch-namespaces": "watchNamespaces: [team-a, team-b]",
    "engine-images": """
        engineImages: {cpu: "r.example/l:c", gpu: "r.example/l:g", byResource: {amd.com/gpu: "r.example/l:a"}}
    """,
    "models": """
        modelDefaults: {startupTimeoutSec: 900}
        argumentPolicy: Strict
        allowedFlags: [--slot-save-path]
        inspection: {enabled: false, timeoutSec: 60}
        nodeAffinity: false
        gpuOverhead: {nvidia: 512Mi}
    """,
    "pace": "{workers: 4, resyncIntervalSec: 60}",
    "logs": "{logLevel: debug, logFormat: text, gateway: {enabled: true, accessLog: false}}",
    "webhook-off": "webhook: {mode: 'off'}",
    "webhook-cert-manager": "webhook: {mode: cert-manager}",
    "webhook-issuer": "webhook: {mode: cert-manager, issuerRef: {name: corporate, kind: ClusterIssuer}}",
    "webhook-of-watched-namespaces": """
        watchNamespaces: [team-a]
        webhook: {mode: cert-manager, namespaceSelector: {matchLabels: {reviewed: "yes"}}}
    """,
    "webhook-details": """
        webhook:
          failurePolicy: Fail
          timeoutSeconds: 10
          namespaceSelector: {matchLabels: {reviewed: "yes"}}
          port: 10250
          certificateLifeSec: 86400
    """,
    "operator-extras": f"""
        extraEnv: [{{name: LLAMAMODEL_OPERATOR_HTTP_HOST, value: "::"}}]
        extraVolumes: [{_VOLUME}]
        extraVolumeMounts: [{_MOUNT}]
        podLabels: {{team: blue}}
        podAnnotations: {{example.com/note: text}}
    """,
    "operator-placement": f"""
        priorityClassName: system-cluster-critical
        nodeSelector: {{kubernetes.io/os: linux}}
        tolerations: [{_TOLERATION}]
        affinity: {_AFFINITY}
        topologySpreadConstraints: [{_ZONES}]
    """,
    "operator-pods": """
        replicas: 2
        podDisruptionBudget: {maxUnavailable: 50%}
        httpPort: 9090
        resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 2Gi}}
        podSecurityContext: {runAsUser: null, runAsGroup: null}
    """,
    "operator-without-budget": "{replicas: 2, podDisruptionBudget: {enabled: false}}",
    "image": f"""
        image: {{repository: r.example/operator, digest: "{_DIGEST}", pullPolicy: Always}}
        imagePullSecrets: [{{name: registry}}]
        gateway: {{enabled: true}}
    """,
    "image-tag": "image: {tag: nightly}",
    "gateway": "gateway: {enabled: true}",
    "gateway-replicas": "gateway: {enabled: true, replicas: 5, podDisruptionBudget: {maxUnavailable: 2}}",
    "gateway-without-budget": "gateway: {enabled: true, podDisruptionBudget: {enabled: false}}",
    "gateway-autoscaling": "gateway: {enabled: true, autoscaling: {enabled: true}}",
    "gateway-autoscaling-by-metrics": """
        gateway:
          enabled: true
          autoscaling:
            enabled: true
            minReplicas: 1
            maxReplicas: 8
            metrics:
              - type: Pods
                pods:
                  metric: {name: llamamodel_gateway_requests_in_flight}
                  target: {type: AverageValue, averageValue: 100}
            behavior: {scaleDown: {stabilizationWindowSeconds: 600}}
    """,
    "gateway-autoscaling-by-cpu": "gateway: {enabled: true, autoscaling: {enabled: true, targetCPU: 400m}}",
    "gateway-service": """
        gateway: {enabled: true, port: 443, service: {type: LoadBalancer, annotations: {example.com/internal: "true"}}}
    """,
    "gateway-ingress": """
        gateway:
          enabled: true
          ingress:
            enabled: true
            className: nginx
            annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"}
            hosts: [chat.example.com, llm.example.com]
            tlsSecretName: chat-tls
    """,
    "gateway-http-route": """
        gateway:
          enabled: true
          httpRoute:
            enabled: true
            parentRefs: [{name: public, namespace: gateways, sectionName: https}]
            hostnames: [chat.example.com]
            annotations: {example.com/note: text}
            timeouts: {request: 1h}
    """,
    "keys-of-pods": "{podKeys: {secretName: keys-of-pods}, gateway: {enabled: true}}",
    "gateway-keys-and-tls": """
        gateway:
          enabled: true
          keys: {secretName: keys, wrongPerMinute: 5}
          tls: {secretName: gateway-tls}
          corsOrigins: ["https://chat.example.com"]
    """,
    "gateway-limits": """
        gateway:
          enabled: true
          bareNamespaces: [team-a]
          timeoutSec: 60
          bodyLimitBytes: 1048576
          bodiesLimitBytes: 2097152
          maxInFlight: 10
          maxInFlightPerPod: 2
          maxConnections: 20
          idleTimeoutSec: 30
          writeTimeoutSec: 10
          wait: {seconds: 5, perModel: 2, total: 8}
          loadPollSec: 0
          stopDelaySec: 0
          drainSec: 10
    """,
    "gateway-service-account": """
        gateway: {enabled: true, serviceAccount: {name: theirs, annotations: {example.com/note: text}}}
    """,
    "gateway-service-account-of-others": "gateway: {enabled: true, serviceAccount: {create: false, name: theirs}}",
    "gateway-extras": f"""
        gateway:
          enabled: true
          extraEnv: [{{name: LLAMAMODEL_GATEWAY_HOST, value: "::"}}]
          extraVolumes: [{_VOLUME}]
          extraVolumeMounts: [{_MOUNT}]
          podLabels: {{team: blue}}
          podAnnotations: {{example.com/note: text}}
          resources: {{requests: {{cpu: 1, memory: 1Gi}}, limits: {{memory: 2Gi}}}}
    """,
    "gateway-placement": f"""
        gateway:
          enabled: true
          priorityClassName: system-cluster-critical
          nodeSelector: {{kubernetes.io/os: linux}}
          tolerations: [{_TOLERATION}]
          affinity: {_AFFINITY}
          topologySpreadConstraints: [{_ZONES}]
    """,
    "crds-none": "crds: {enabled: false}",
    "crds-go": "crds: {keep: false}",
    "rbac-none": "{rbac: {create: false}, gateway: {enabled: true}}",
    "rbac-without-users": "rbac: {aggregateClusterRoles: false}",
    "network-policies": "{networkPolicy: {enabled: true}, gateway: {enabled: true}}",
    "network-policies-without-gateway-and-webhook": "{networkPolicy: {enabled: true}, watchNamespaces: [team-a]}",
    "network-policies-for-known-peers": """
        gateway: {enabled: true}
        networkPolicy:
          enabled: true
          modelNamespaces: [team-a]
          modelsFrom: [{podSelector: {matchLabels: {app: batch}}}]
          gatewayFrom: [{namespaceSelector: {matchLabels: {llm: "yes"}}}]
          metricsFrom: []
          dnsPorts: [53, 5353]
          apiServer: {cidrs: [10.0.0.10/32, "fd00::a/128"], ports: [16443]}
    """,
    "common-labels": "{commonLabels: {team: blue, app.kubernetes.io/part-of: ours}, gateway: {enabled: true}}",
    "common-annotations": """
        commonAnnotations: {example.com/contact: platform}
        gateway: {enabled: true, service: {annotations: {example.com/contact: team-a}}}
        webhook: {mode: cert-manager}
    """,
    "service-account": "serviceAccount: {name: theirs, annotations: {example.com/note: text}}",
    "service-account-of-others": "serviceAccount: {create: false, name: theirs}",
    "metrics-service": "metrics: {service: {port: 9100, annotations: {example.com/note: text}}}",
    "metrics-service-none": "metrics: {service: {enabled: false}}",
    "monitoring": "{monitoring: {enabled: true}, gateway: {enabled: true}}",
    "monitoring-details": """
        monitoring:
          enabled: true
          labels: {release: kube-prometheus-stack}
          scrape: {interval: 15s, modelAuthorization: {credentials: {name: llama-keys, key: prometheus}}}
          alerts: {without: [LlamaModelNotReady], runbookUrl: "https://runbooks.example.com"}
          dashboards: {labels: {grafana_dashboard: "yes"}, annotations: {grafana_folder: LLM}}
    """,
    "monitoring-alerts-alone": "monitoring: {enabled: true, scrape: {enabled: false}, dashboards: {enabled: false}}",
    "monitoring-scrape-alone": "monitoring: {enabled: true, alerts: {enabled: false}, dashboards: {enabled: false}}",
    "names": "nameOverride: models",
    "full-name": "fullnameOverride: models",
}

_OFF = {
    "webhook-off",
    "operator-without-budget",
    "gateway-without-budget",
    "gateway-autoscaling-by-metrics",
    "crds-none",
    "rbac-none",
    "rbac-without-users",
    "service-account-of-others",
    "metrics-service-none",
    "monitoring-alerts-alone",
    "monitoring-scrape-alone",
    "names",
    "full-name",
}
"""Switches that take something away, or name it otherwise."""


def everything() -> str:
    """Values with all that can be switched on; of two switches for one value the later one counts."""
    merged: dict[str, Any] = {}
    for name, values in SWITCHES.items():
        if name not in _OFF:
            _merge(merged, yaml.safe_load(values))
    return yaml.safe_dump(merged)


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            _merge(into.setdefault(key, {}), value)
        elif value is not None:  # None takes a default away
            into[key] = value
