-- LlamaModel of https://llamamodel.dev: a GGUF model that llama.cpp's llama-server serves.
-- Conditions follow kstatus as far as Ready goes; what they mean: docs/status.md of llamamodel-operator.
-- No function of the standard library but ipairs is used: Argo CD opens few of them.

local function condition(kind)
  for _, found in ipairs(obj.status.conditions or {}) do
    if found.type == kind then
      return found
    end
  end
  return {}
end

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "it is being deleted" }
end
if obj.status == nil or obj.status.conditions == nil then
  return { status = "Progressing", message = "the operator has not looked at it yet" }
end
local ready = condition("Ready")
if obj.status.observedGeneration ~= obj.metadata.generation or ready.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not looked at the change yet" }
end

if ready.status == "True" then
  local message = ready.message
  local warnings = 0
  for _, finding in ipairs(obj.status.findings or {}) do
    if finding.severity == "warning" then
      warnings = warnings + 1
    end
  end
  if warnings > 0 then
    message = message .. "; warnings in status.findings: " .. warnings
  end
  return { status = "Healthy", message = message }
end

local message = ready.reason .. ": " .. ready.message
if ready.reason == "Suspended" or ready.reason == "ScaledToZero" then
  return { status = "Suspended", message = message }
end
local available = condition("Available")
if available.status == "True" then
  message = message .. "; " .. available.message
end
-- Progressing is False where it gets no further unless somebody does something. A pod without a node is the exception:
-- an autoscaler may be bringing one, and a sync must not fail for that.
if condition("Progressing").status == "True" or ready.reason == "Unschedulable" then
  return { status = "Progressing", message = message }
end
return { status = "Degraded", message = message }
