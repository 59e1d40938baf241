"""What each reason means, how to see it and what to do: docs/troubleshooting.md is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamamodel_operator.api.conditions import Reason

__all__ = ["GUIDE", "Guide", "guide_link"]


@dataclass(frozen=True, kw_only=True)
class Guide:
    """One section, in Markdown of one paragraph each. NAME is the model, NAMESPACE its namespace.

    Attributes:
        look: how to see it; empty where the message has all.
        do: what to do; empty where there is nothing to be done.
    """

    means: str
    look: str = ""
    do: str = ""


def guide_link(reason: str) -> str:
    """Where the section of a reason is, in the repository."""
    return f"docs/troubleshooting.md#{reason.lower()}"


GUIDE: Mapping[Reason, Guide] = {
    Reason.ACCEPTED: Guide(
        means="the spec is valid and all objects exist",
    ),
    Reason.READY: Guide(
        means="the message has the name and the address under which the model is served",
    ),
    Reason.PODS_AVAILABLE: Guide(
        means="the message says how many pods answer",
    ),
    Reason.ROLLOUT_COMPLETE: Guide(
        means="nothing is left to do",
    ),
    Reason.SUSPENDED: Guide(
        means="`spec.suspend` is true; no pod runs, GPUs are free, Service and status stay",
        do="set it to false to serve again",
    ),
    Reason.SCALED_TO_ZERO: Guide(
        means="`spec.replicas` is 0",
        do="`kubectl scale lm NAME --replicas 1`",
    ),
    Reason.STARTING: Guide(
        means="pods are being made, scheduled, or pull their image; or a new pod waits for the room of one that is "
        "still being deleted, and the message names that one, its node and the scheduler's words",
        do="`kubectl describe pod -l llamamodel.dev/model=NAME`: a large image takes minutes. A pod that hangs "
        "in Terminating on a dead node goes by `kubectl delete pod NAME --force`",
    ),
    Reason.LOADING: Guide(
        means="a server runs and reads its model; the message says until when it may",
        do="it becomes `StartupTimeout` by itself",
    ),
    Reason.ROLLING_OUT: Guide(
        means="some pods are ready, but not all, or not all of this spec, or the Deployment controller has not seen"
        " the present spec yet",
        do="`kubectl rollout status deploy/NAME`; a pod that never becomes ready is shown with its own reason, "
        "or as `ProgressDeadlineExceeded`",
    ),
    Reason.VERIFYING: Guide(
        means="a pod is ready, and its server is asked for a first answer",
        do="if it stays: the server works on other requests, or hangs; after two tries of two minutes it is"
        " `NotAnswering`",
    ),
    Reason.NOT_ANSWERING: Guide(
        means="a pod is ready for the kubelet, and its server answers the operator's small request with an error, has"
        " the model under another name, takes the request and never answers it (unless it has answered before: then it"
        " is busy), or gives a vector of another width than the file says",
        look="the message has what it said; `kubectl logs -n NAMESPACE deploy/NAME`",
        do="correct what it says; `spec.task` and `engine.pooling` for embeddings and rerank, the grammar or template"
        " that it cannot use. It is asked again every 30 s",
    ),
    Reason.API_KEY_NOT_REQUIRED: Guide(
        means="the spec has `apiKeySecretRef`, and a server answers without a key as well: its port is open to whoever"
        " reaches it. Its image does not use the file, the file had no key when the server started, or something else"
        " answers in its place",
        look="the message has what it answered to a request without a key; `kubectl logs -n NAMESPACE deploy/NAME`",
        do="put a key into the Secret and delete the pod; or use an image of llama-server itself. It is asked again"
        " every 30 s",
    ),
    Reason.RUNS_ON_CPU: Guide(
        means="`spec.gpu` asks for a GPU, and the server's log says that it found none. `Ready` is `False` for it with"
        " `spec.requireOffload` alone",
        look="the message has the line of the log",
        do="use an image that is built for this GPU, a driver on the node that is new enough for it, and"
        " `spec.runtimeClassName` where GPUs need one",
    ),
    Reason.ON_GPU: Guide(
        means="the server's log names the GPUs that it found",
    ),
    Reason.OFFLOAD_UNKNOWN: Guide(
        means="no server runs, or its log does not tell whether it has a GPU",
        do='`extraArgs: ["-lv", "4"]` has it told',
    ),
    Reason.INVALID_SPEC: Guide(
        means="the spec cannot work: a field breaks a rule, or a finding of severity `error` speaks against it. "
        "What runs is left as it is; scaling and suspending still work",
        look="the message names fields, what was found and what is expected; `status.findings` has all",
        do="correct the spec",
    ),
    Reason.HELD_BACK: Guide(
        means="this build of llama-server is known to refuse the spec's arguments, and pods of an earlier spec "
        "serve: they stay",
        look="the message names the argument",
        do="correct it; `llamamodel validate` says the same beforehand",
    ),
    Reason.NOT_OURS: Guide(
        means="a Deployment or Service of that name exists and belongs to something else, or to nobody. The Service"
        " is made first: where its name is taken, no Deployment is made. (One that the operator made and "
        "whose owner is gone, by `kubectl delete --cascade=orphan`, is taken in again)",
        look="`kubectl get deploy,svc NAME -n NAMESPACE -o yaml`, its `ownerReferences`",
        do="delete or rename that object, or give the LlamaModel another name. It is never changed by the operator",
    ),
    Reason.OBJECT_REFUSED: Guide(
        means="the API server or an admission policy refuses the object for another reason, or an admission webhook"
        " that must be asked does not answer (`failed calling webhook`)",
        look="the message is the API server's own",
        do="correct the field that it names, or ask whoever owns the policy or the webhook",
    ),
    Reason.QUOTA_EXCEEDED: Guide(
        means="a ResourceQuota leaves no room for the object, or for its pods",
        look="`kubectl describe resourcequota -n NAMESPACE`",
        do="raise the quota, or ask for less",
    ),
    Reason.FORBIDDEN: Guide(
        means="the operator may not write the object",
        look="the message; the operator's RoleBindings in the namespace; whether the namespace is being deleted",
        do="give the operator its rights (the chart's `rbac.create`, `watchNamespaces`)",
    ),
    Reason.INSPECTED: Guide(
        means="the headers are valid, every tensor lies inside its file, and the files fit together",
    ),
    Reason.INSPECTING: Guide(
        means="the Job is under way, or waits for the claim. `Ready` only where nothing of this spec runs yet",
        do="if it stays: the message; `kubectl get jobs,pods -l app.kubernetes.io/instance=NAME`",
    ),
    Reason.INSPECTION_OFF: Guide(
        means="the operator does not inspect (`inspection.enabled`)",
    ),
    Reason.INSPECTION_UNAVAILABLE: Guide(
        means="nobody could look within `inspection.timeoutSec` (120 s): a quota, a policy, no node, an image that "
        "cannot be pulled, a claim that waits for its first pod. The model starts all the same, without facts"
        " about its files",
        do="what the message says. It is tried again by itself",
    ),
    Reason.MODEL_FILE_NOT_FOUND: Guide(
        means="there is no such file, or a link leads nowhere or out of the volume. The message says what lies "
        "beside it",
        do="correct `path`, or copy the file",
    ),
    Reason.MODEL_FILE_CHANGED: Guide(
        means="a pod that was about to start found another file than the one that was inspected. It is inspected "
        "again by itself, and then started",
        do="if it stays: somebody writes to the file all the time",
    ),
    Reason.MODEL_TRUNCATED: Guide(
        means="the file ends before its header or its tensors do: the copy is not complete, or the file is empty",
        do="copy the file again, or wait until the copy is finished",
    ),
    Reason.NOT_GGUF: Guide(
        means="the file is something else; the message says what",
        do="name a GGUF file",
    ),
    Reason.UNSUPPORTED_VERSION: Guide(
        means="a GGUF of a version or a byte order that llama.cpp does not load",
        do="convert the model again",
    ),
    Reason.INVALID_HEADER: Guide(
        means="the header contradicts itself; the message has the offset",
        do="copy the file again",
    ),
    Reason.MODEL_CORRUPT: Guide(
        means="the server read the whole header and stopped at what comes after it: a tensor is missing or has "
        "another shape, or, with `engine.checkTensors`, weights are no numbers",
        do="copy the file again and name its `sha256`, so that every inspection compares it; a model that was "
        "made for a newer llama.cpp needs a newer `spec.image`",
    ),
    Reason.UNSUPPORTED_ARCHITECTURE: Guide(
        means="the build of llama.cpp in the image does not know the model's architecture or tokenizer",
        look="`status.model.architecture`, `status.engine.image`",
        do="use a newer `spec.image`, or another model",
    ),
    Reason.UNSUPPORTED_QUANTIZATION: Guide(
        means="the file stores weights in a way that this build does not know: a newer one, or one that was removed"
        " (Q4_2, Q4_0_4_4 and their like)",
        look="`status.model.quantization`, `status.engine.image`",
        do="use a newer `spec.image`, or a file with another quantization",
    ),
    Reason.PART_MISSING: Guide(
        means="one of the files of a model in several parts is not beside the first",
        do="copy it there",
    ),
    Reason.PART_MISMATCH: Guide(
        means="a part is of another model, or the file named is not the first part",
        do="the message says which file to name or to replace",
    ),
    Reason.ADAPTER_INCOMPATIBLE: Guide(
        means="a LoRA adapter was made for another model",
        do="the message names the tensor; use the model that the adapter was made for",
    ),
    Reason.PROJECTOR_INCOMPATIBLE: Guide(
        means="the projector was made for another model",
        do="use the projector that comes with the model",
    ),
    Reason.DRAFT_INCOMPATIBLE: Guide(
        means="the vocabularies of the model and of its draft model differ",
        do="use a draft model of the same family",
    ),
    Reason.PERMISSION_DENIED: Guide(
        means="the user of the pod may not read the file",
        do="`spec.podSecurityContext` (`runAsUser`, `fsGroup`, `supplementalGroups`), or the file's mode",
    ),
    Reason.CHECKSUM_MISMATCH: Guide(
        means="the file has another SHA-256 than `sha256` says",
        do="copy the file again, or correct `sha256`",
    ),
    Reason.MEMORY_FITS: Guide(
        means="the message says what is needed and which nodes have it",
    ),
    Reason.MEMORY_TOO_SMALL: Guide(
        means="no node that the model may run on has enough, or the memory limit is too small. The message says "
        "what is needed, what there is, and what would fit. With `Warn` the model starts all the same; with "
        "`Block` no pod is started until a node has enough, and pods that run already are left alone",
        do="one of the changes that the message names, other nodes, or a smaller quantization",
    ),
    Reason.NO_GPU_ASKED_FOR: Guide(
        means="no GPU is asked for: the model runs on the CPU (of `MemoryFits`: and there is no memory limit to compare"
        " with)",
    ),
    Reason.NOT_ESTIMATED: Guide(
        means="the files are not known, or the header lacks what an estimate needs",
        do="see `Inspected`",
    ),
    Reason.NODES_NOT_VISIBLE: Guide(
        means="the operator has rights in its namespaces alone (`watchNamespaces`), and nodes belong to none",
        do="set `spec.gpu.memory`",
    ),
    Reason.NO_NODE_YET: Guide(
        means="no node that the model may run on is there; the message says why those with such GPUs do not count. "
        "An autoscaler may bring one",
    ),
    Reason.GPU_MEMORY_UNKNOWN: Guide(
        means="no label and no ResourceSlice says what the GPUs have, as on plain EKS and GKE",
        do="install GPU feature discovery, or set `spec.gpu.memory`",
    ),
    Reason.GPU_SHARED: Guide(
        means="pods share GPUs by time-slicing or MPS: what one gets is not known",
        do="set `spec.gpu.memory` to what a pod can count on",
    ),
    Reason.CLAIM_NOT_FOUND: Guide(
        means="the PersistentVolumeClaim does not exist in the model's namespace. Nothing is made before it is "
        "there (with inspections off: pods exist and wait for it)",
        look="`kubectl get pvc -n NAMESPACE`",
        do="create the claim, or correct `spec.model.pvc.claimName`",
    ),
    Reason.CLAIM_PENDING: Guide(
        means="the claim has no volume yet. Normal for a moment where volumes are bound when a pod is scheduled",
        look="`kubectl describe pvc`, its events; the StorageClass",
        do="if it stays: whatever the provisioner says",
    ),
    Reason.CLAIM_LOST: Guide(
        means="the claim's volume is gone",
        look="`kubectl describe pvc`, the PersistentVolume",
        do="restore the volume, or make a new claim and fill it",
    ),
    Reason.CLAIM_TERMINATING: Guide(
        means="the claim is being deleted, and a pod that is not ready needs it",
        look="`kubectl describe pvc`, *Used By*",
        do="wait until it is gone, then make a new one",
    ),
    Reason.UNSCHEDULABLE: Guide(
        means="no node fits. (While a pod of this model is still being deleted, its room is what the new one waits "
        "for: that is `Starting`)",
        look="the message has the scheduler's words, how many GPUs each pod asks for, whether the claim is "
        "Pending, and what would help; `kubectl describe nodes`",
        do="free or add a node; ask for less in `spec.gpu` and `spec.resources`; correct `nodeSelector`, "
        "`affinity`, `tolerations`; with a ReadWriteOncePod claim see "
        "[status.md](status.md#volumes-of-one-node-or-one-pod)",
    ),
    Reason.VOLUME_MOUNT_FAILED: Guide(
        means="the pod has a node, and after 10 seconds a volume is not attached or mounted there, as the pod's "
        "events say",
        look="`kubectl describe pod -l llamamodel.dev/model=NAME`, `kubectl describe pvc`",
        do="what the event names: a ConfigMap or Secret that is missing, credentials of the storage, a driver "
        "that does not run on the node. The kubelet tries again by itself",
    ),
    Reason.MULTI_ATTACH: Guide(
        means="the volume can be attached to one node at a time (ReadWriteOnce) and is attached to another one",
        look="`kubectl get pods -A -o wide`, `kubectl get volumeattachments`",
        do="stop the pod that has it, keep the pods on one node (`spec.nodeSelector`), or use a ReadWriteMany or"
        " ReadOnlyMany claim; see [status.md](status.md#volumes-of-one-node-or-one-pod). After a node "
        "was lost, Kubernetes detaches by itself after six minutes",
    ),
    Reason.POD_SECURITY_VIOLATION: Guide(
        means="the namespace's Pod Security level, or OpenShift's security context constraints, forbid the pod as "
        "`spec` makes it. Without `podSecurityContext` in the spec, pods satisfy `restricted`",
        look="`kubectl get namespace NAMESPACE -o yaml`, its labels `pod-security.kubernetes.io/…`; `kubectl "
        "describe rs -l llamamodel.dev/model=NAME`",
        do="correct what the message names in `spec.podSecurityContext`, or ask for another level of the namespace",
    ),
    Reason.ADMISSION_DENIED: Guide(
        means="an admission webhook, a ValidatingAdmissionPolicy or a LimitRange refuses an object or its pods",
        look="the message is the refusal, and names what refuses",
        do="correct what it asks for (labels, resources, images), or ask whoever owns the policy",
    ),
    Reason.POD_CREATION_FAILED: Guide(
        means="the Deployment exists, and its pods are refused for another reason than a quota, Pod Security or a "
        "policy: a service account or priority class that does not exist, an admission webhook that does not "
        "answer",
        look="the message is the refusal; `kubectl describe rs -l llamamodel.dev/model=NAME`",
        do="correct `spec.serviceAccountName` or `spec.priorityClassName`, or what the message names",
    ),
    Reason.IMAGE_NOT_FOUND: Guide(
        means="the registry has no such image, its name is wrong, or it is not on the node and `imagePullPolicy` is"
        " `Never`",
        look="the message has the registry's answer",
        do="correct `spec.image`, or push the image",
    ),
    Reason.IMAGE_PULL_DENIED: Guide(
        means="the registry wants other credentials, or none that the pod has may read the image. Many registries "
        "answer the same where there is no such image",
        look="the message has the registry's answer",
        do="name a secret of type `kubernetes.io/dockerconfigjson` in `spec.imagePullSecrets`, and check `spec.image`",
    ),
    Reason.IMAGE_PULL_FAILED: Guide(
        means="the image cannot be pulled for another reason than `ImageNotFound` and `ImagePullDenied`: the "
        "registry does not answer, its certificate is not known, the node's disk is full",
        look="the message has the registry's answer",
        do="what the message says; check `spec.image` and the node's way to the registry",
    ),
    Reason.CONTAINER_CONFIG_ERROR: Guide(
        means="the node cannot create the container: a Secret, ConfigMap or key that `spec.env` names is not there,"
        " a UID that is not allowed (`runAsUser: 0` without `runAsNonRoot: false`), or it cannot make the "
        "pod's sandbox",
        look="the message is the kubelet's",
        do="create it, or correct `spec.env` or `spec.podSecurityContext`; for a sandbox: the node's network "
        "plugin, and `spec.runtimeClassName`",
    ),
    Reason.API_KEYS_NOT_FOUND: Guide(
        means="the Secret that `spec.apiKeySecretRef` names, or its entry, is not in the model's namespace: no"
        " container of the pod is started",
        look="the message is the kubelet's; `kubectl describe secret -n NAMESPACE SECRET` lists the Secret's entries",
        do="create it, or correct `spec.apiKeySecretRef`. The kubelet tries again by itself, after two minutes at most",
    ),
    Reason.API_KEYS_UNUSABLE: Guide(
        means="the file of API keys that `spec.apiKeySecretRef` names has no key, or a line that no client can show."
        " llama-server would be open to all with the one, and shut to all with the other, so it is not started",
        look="the message has the number of the line",
        do="write one key a line, without blanks at the ends and with line ends as Linux has them. The pod tries again"
        " by itself, after five minutes at most; `kubectl delete pod` has it try at once",
    ),
    Reason.INVALID_ARGUMENT: Guide(
        means="this build of llama-server refuses an argument, a value of one, or settings that do not go together",
        look="`status.command`, `status.findings`",
        do="correct the field, the word of `spec.extraArgs` or the variable of `spec.env` that the line names; "
        "`llamamodel validate` finds most of them beforehand, [flags](reference/flags.md) has all",
    ),
    Reason.INVALID_GRAMMAR: Guide(
        means="the grammar or the JSON schema has an error, or its file cannot be read",
        do="correct `spec.grammar`; `llamamodel validate` says where the error is",
    ),
    Reason.INVALID_CHAT_TEMPLATE: Guide(
        means="the chat template does not parse, does not render, or is no preset that this build knows",
        do="correct `spec.chatTemplate`; `llamamodel render` shows what the server gets",
    ),
    Reason.OUT_OF_GPU_MEMORY: Guide(
        means="the GPU refused memory: weights, KV cache and scratch buffers are more than is free on it, perhaps "
        "since something else uses it",
        look="`status.memory`, what is estimated and what the GPUs have; `nvidia-smi` on the node",
        do="a smaller `engine.contextSize`, `parallelSlots` or `microBatchSize`, `cacheTypeK` and `cacheTypeV` "
        "of `q8_0`, fewer `gpuLayers`, a smaller quantization, or more GPUs. `memoryPolicy: Block` holds what"
        " does not fit before it takes a GPU",
    ),
    Reason.OUT_OF_MEMORY: Guide(
        means="killed for going over the container's **memory limit**, or the node could not give the host memory "
        "that was asked for. GPU memory that is out is `OutOfGPUMemory`",
        look="`kubectl top pod`",
        do="raise `spec.resources.limits.memory`, or lower `engine.contextSize`; llama-server also keeps prompts"
        " in host memory, by default up to 8 GiB (`engine.promptCacheSize`)",
    ),
    Reason.GPU_DRIVER_MISMATCH: Guide(
        means="the image and the node's GPU do not go together: its CUDA or ROCm is newer than the driver, it has "
        "no code for this GPU, or the driver is not in the container",
        look="`nvidia-smi` on the node says which CUDA version the driver can run; the image's tag says which one "
        "it needs",
        do="use an image for an older CUDA (`spec.image`), nodes with a newer driver (`spec.nodeSelector`), or, "
        "where the driver is not in the container, `spec.runtimeClassName`",
    ),
    Reason.ILLEGAL_INSTRUCTION: Guide(
        means="the image was built for another CPU: one with instructions that the node's does not have (exit code "
        "132), or of another architecture",
        look="`kubectl get node -o wide`; `lscpu` on the node",
        do="use an image that chooses its CPU code when it starts, as the official ones do, or one for this CPU "
        "(`spec.image`); or other nodes (`spec.nodeSelector`)",
    ),
    Reason.PORT_IN_USE: Guide(
        means="the server cannot listen on port 8080: another container of the pod does, or, with the node's "
        "network, another program. A TLS certificate or key in `spec.extraArgs` that cannot be read gives the"
        " same line",
        look="`kubectl get pod -o yaml`: which containers it has, whether something injected one",
        do="give the other container another port",
    ),
    Reason.STARTUP_TIMEOUT: Guide(
        means="the model did not answer within `spec.startupTimeoutSec` (unset: 300) of the container's start, and "
        "the kubelet restarted it",
        look="how far the log came: `status.lastFailure.lastLines`; the speed of the storage",
        do="raise `spec.startupTimeoutSec`. The clock starts with the container: scheduling and the pull of the "
        "image do not count",
    ),
    Reason.CRASH_LOOP: Guide(
        means="`llama-server` ended by itself, again and again, and no line of its log that is known tells why",
        look="`status.lastFailure.lastLines`; `kubectl logs -n NAMESPACE deploy/NAME --previous`",
        do="what the lines say; with `logging.verbose: true` there are more of them. A line that tells, and is "
        "not in the tables below, is worth an issue. Exit code 139 or 134 without a telling line is an error "
        "of llama.cpp: try another build",
    ),
    Reason.PROGRESS_DEADLINE_EXCEEDED: Guide(
        means="a rollout got no further within the Deployment's `progressDeadlineSeconds`, which is "
        "`spec.startupTimeoutSec` and 600 s. The usual causes: a volume that does not mount or is attached to"
        " another node (`Multi-Attach`), an init container of others that fails. The phase is `Updating` "
        "while some pods answer, else `Failed`",
        look="`kubectl describe pod`, as the message says: its events",
        do="what the events ask for. When the rollout goes on, so does the status",
    ),
    Reason.POD_NOT_READY: Guide(
        means="a pod of this spec was ready and is not any more, or its server is and the pod did not become ready "
        "before the deadline of the rollout: its node is down, a sidecar or a readiness gate is not ready, or the "
        "server does not accept connections. The phase is `Updating` while another pod answers, else `Failed`",
        look="the message has the pod, its node and the kubelet's words; `kubectl describe pod`, `kubectl get nodes`",
        do="mend the node or the sidecar. A pod on a node that is down is marked for deletion by Kubernetes, by "
        "default after five minutes, and another one is made",
    ),
    Reason.NO_POD_AVAILABLE: Guide(
        means="no pod is ready; the reason of `Ready` says why",
    ),
}
